"""Rearrangement: how much more of the weights is kept, and which networks can be rearranged."""
