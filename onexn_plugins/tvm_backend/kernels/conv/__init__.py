"""Convolutions summed as they are defined, 1×1 and k×k."""
