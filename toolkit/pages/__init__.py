"""The pages that show runs, evaluations, comparisons and data sets: they show what there is, and change no result."""
