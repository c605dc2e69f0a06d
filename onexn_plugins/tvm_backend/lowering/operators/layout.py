"""Where an element lies in a flat tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.expression import Expr


def around(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """Sizes (outer, size, inner): element `at` of a row along the axis lies at (before * size + at) * inner + after."""
    axis %= len(shape)
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1:])


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """How far the next element of each axis is."""
    return tuple(math.prod(shape[axis + 1:]) for axis in range(len(shape)))


def coordinates(flat: Any, shape: Sequence[int]) -> list[Expr]:
    """The place along each axis of the element that lies at `flat`."""
    return [flat // stride % size for stride, size in zip(strides(shape), shape, strict=True)]


def place(position: Sequence[Expr], shape: Sequence[int]) -> Expr:
    """Where the element at that position lies."""
    return sum((at * stride for at, stride in zip(position, strides(shape), strict=True)), tirx.const(0, "int32"))


def counted(index: Expr, size: int) -> Expr:
    """An index that may be negative, and then counts from the end, as one from the beginning, as int32.

    What lies outside stays outside: compare before reading (see is_inside).
    """
    whole = T.bind(T.cast(index, "int64"))
    before, after = tirx.const(-1, "int64"), tirx.const(size, "int64")
    return T.bind(T.cast(tirx.Select(whole < 0, tirx.max(whole + size, before), tirx.min(whole, after)), "int32"))


def is_inside(index: Expr, size: int) -> Expr:
    """Whether there is such an element."""
    return tirx.And(index >= 0, index < size)
