"""Filters of well-known networks, cut by NNI's ModelSpeedup or, where it cannot, by torch-pruning in its place."""
