"""What kernels of attention are asked to compute: products of two activations, and rows of what they make.

Everything is float32. A matrix is described by where its elements lie in a tensor, so that transposing, slicing and
reshaping it before a product takes no pass over memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Matrices:
    """Matrices of one size inside a tensor.

    Attributes:
        tensor: its shape.
        strides: how far the next matrix along each batch axis, the next row and the next column are; 0 repeats.
        offset: where the first element lies.
        factors: what each element is multiplied by, one after the other.
    """

    tensor: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    factors: tuple[float, ...] = ()

    @property
    def row(self) -> int:
        return self.strides[-2]

    @property
    def column(self) -> int:
        return self.strides[-1]


@dataclass(frozen=True)
class MatMul:
    """left [*batch, rows, inner] times right [*batch, inner, columns], each result times the factors of `result`.

    Attributes:
        left, right: the operands; input_shape is the left one's tensor.
        result: where results go, columns side by side.
    """

    batch: tuple[int, ...]
    rows: int
    inner: int
    columns: int
    left: Matrices
    right: Matrices
    result: Matrices

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.left.tensor

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.result.tensor

    @property
    def macs(self) -> int:
        """Multiply-adds of one matrix."""
        return self.rows * self.inner * self.columns


@dataclass(frozen=True)
class _Rows:
    """Rows of a tensor of that shape, each on its own: all axes from `axis` on are one row."""

    shape: tuple[int, ...]
    axis: int = -1

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.shape

    @property
    def row_size(self) -> int:
        return math.prod(self.shape[self.axis % len(self.shape):])

    @property
    def rows(self) -> int:
        return math.prod(self.shape) // self.row_size


@dataclass(frozen=True)
class Softmax(_Rows):
    """exp(x) over its sum along the last axis."""


@dataclass(frozen=True)
class LayerNorm(_Rows):
    """x less its mean, over the root of its variance and epsilon."""

    epsilon: float = 1e-5


@dataclass(frozen=True)
class InstanceNorm(_Rows):
    """The same of each channel of each image: a row is all pixels of one."""

    axis: int = 2
    epsilon: float = 1e-5


@dataclass(frozen=True)
class Transpose:
    """Axes in another order: axis i of the result is axis order[i] of the input."""

    shape: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.order)
