"""Nets by others, and the trained weights that they start from."""
