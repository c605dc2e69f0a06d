"""Operators that are said in simpler ones while the graph is built; table.py lists them."""
