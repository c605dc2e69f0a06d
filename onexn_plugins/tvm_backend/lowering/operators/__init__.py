"""Operators lowered by this package itself, one kind per file; own.py lists them."""
