"""Whose labels may be wrong: what nets say against them, how likely that is, in which order to look, and decisions."""
