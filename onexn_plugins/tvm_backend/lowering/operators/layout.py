"""Where an element lies in a flat tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence


def around(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """Sizes (outer, size, inner): element `at` of a row along the axis lies at (before * size + at) * inner + after."""
    axis %= len(shape)
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1:])


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """How far the next element of each axis is."""
    return tuple(math.prod(shape[axis + 1:]) for axis in range(len(shape)))
