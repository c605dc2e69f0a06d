"""Convolutions with few multiplications, by Winograd's algorithm."""
