"""Fully connected layers: vectors over the channels of a block, or over the rows of x."""
