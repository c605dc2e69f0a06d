"""Transposed convolutions: as many convolutions of stride 1 as the stride has phases, on the same blocks."""
