"""Winograd's minimal filtering in one dimension: m outputs of k taps with m + k - 1 multiplications.

Signals and filters are polynomials; they are evaluated at m + k - 1 points, multiplied there, and the product is taken
back (Toom and Cook's algorithm transposed; Winograd, Arithmetic Complexity of Computations, 1980). The first point is
infinity, where a polynomial's value is its last coefficient.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

# Finite points by how many points there are in all. They come in pairs p, -p, which share most of the work, and their
# powers are exact. Of those that were tried they err least: with 6 points and 64 to 256 channels of 3×3 kernels by
# 1.3e-6 to 1.9e-6 of the largest output, where 0, ±1, ±2 err by 3.6e-6 to 6.5e-6 and a direct sum by 0.6e-6 to 1.1e-6;
# with 7 by 1.4e-6 to 2.0e-6 in 3 to 64 channels of 4×4 kernels, where 0, ±1, ±2, 1/2 err by 1.9e-6 to 6.3e-6.
_POINTS = {6: (0.0, 0.75, -0.75, 1.5, -1.5), 7: (0.375, -0.375, 0.875, -0.875, 1.75, -1.75)}
_FEW_POINTS = (0.0, 1.0, -1.0, 0.5)
MOST_POINTS = max(_POINTS)


@dataclass(frozen=True)
class Filtering:
    """What Lavin and Gray call F(m, k): outputs = output @ ((weight @ taps) * (input @ signal)).

    Attributes:
        input: B transposed, [points, points].
        weight: G, [points, taps].
        output: A transposed, [outputs, points].
    """

    input: np.ndarray
    weight: np.ndarray
    output: np.ndarray

    @property
    def points(self) -> int:
        """Multiplications, and values of the signal that they take."""
        return len(self.input)


@cache
def filterings(outputs: int, taps: int, stride: int) -> tuple[Filtering, ...]:
    """A filtering of every stride-th tap and value, for each first one that has a tap: together a strided filter.

    Those of fewer taps have the first points of the others, so that products at a point can be summed over all.
    """
    counts = [len(range(first, taps, stride)) for first in range(min(stride, taps))]
    side = outputs + counts[0] - 1
    points = _POINTS.get(side, _FEW_POINTS)[:side - 1]
    return tuple(_filtering(outputs, count, points[:outputs + count - 2]) for count in counts)


def _filtering(outputs: int, taps: int, points: tuple[float, ...]) -> Filtering:
    """The filtering at infinity and at finite points."""
    rows = [_at_infinity(outputs, taps, points)] + [_at_point(outputs, taps, points, point) for point in points]
    signal, weight, output = (np.array(matrix) for matrix in zip(*rows, strict=True))
    return Filtering(signal, weight, output.T)


def _at_infinity(outputs: int, taps: int, points: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.poly(points)[::-1], np.eye(taps)[-1], np.eye(outputs)[-1]


def _at_point(outputs: int, taps: int, points: tuple[float, ...],
              point: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lagrange's interpolation; its divisor goes to the weight, which is transformed in advance."""
    others = [other for other in points if other != point]
    divisor = np.prod([point - other for other in others])
    coefficients = np.atleast_1d(np.poly(others))[::-1]
    return np.append(coefficients, 0.0), point ** np.arange(taps) / divisor, point ** np.arange(outputs)
