"""Inputs to compare on: ordinary ones, and those at which code that was only tried on ordinary ones goes wrong."""

from __future__ import annotations

import numpy as np

from onexn_plugins.tvm_backend.reading.graph import TensorSpec

# Overflow and underflow of exp, halves that are rounded, numbers beyond what integers hold.
EXTREMES = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 0.5, -0.5, 1.5, 2.5, 88.8, -88.8, 104.0, -104.0, 1e10, -1e10,
                     3e38, -3e38, 1e-30])


def ordinary(spec: TensorSpec, seed: int = 0) -> np.ndarray:
    """Normally distributed numbers; integers that are 0 or 1, which are valid indices of most things."""
    generator = np.random.default_rng(seed)
    if np.issubdtype(spec.dtype, np.floating):
        return np.asarray(generator.standard_normal(spec.shape), spec.dtype)  # of one number NumPy makes no array
    return np.asarray(generator.integers(0, 2, spec.shape), spec.dtype)


def positive(spec: TensorSpec, seed: int = 0) -> np.ndarray:
    """Numbers from 0.1 to 2.1, of which there are logarithms and roots."""
    if np.issubdtype(spec.dtype, np.floating):
        return np.asarray(0.1 + 2 * np.random.default_rng(seed).random(spec.shape), spec.dtype)
    return np.zeros(spec.shape, spec.dtype)


def large(spec: TensorSpec, seed: int = 0) -> np.ndarray:
    """Ordinary numbers times 1000; integers are 0, always a valid index."""
    if np.issubdtype(spec.dtype, np.floating):
        return np.asarray(ordinary(spec, seed) * 1000, spec.dtype)
    return np.zeros(spec.shape, spec.dtype)


def extreme(spec: TensorSpec, seed: int = 0) -> np.ndarray:
    """One number in three is one of EXTREMES."""
    values = ordinary(spec, seed)
    if np.issubdtype(spec.dtype, np.floating):
        generator = np.random.default_rng(seed + 1)
        with np.errstate(over="ignore"):
            special = EXTREMES.astype(spec.dtype)[generator.integers(0, len(EXTREMES), spec.shape)]
        values = np.where(generator.random(spec.shape) < 1 / 3, special, values)
    return values
