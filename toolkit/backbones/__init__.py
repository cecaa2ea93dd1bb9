"""Nets that are not ours, and the trained weights that they start from."""
