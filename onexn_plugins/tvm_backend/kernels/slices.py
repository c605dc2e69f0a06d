"""Sums over the input channels of a slice at a time: the first slice's begin an output's, the last one's finish it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.encode import Encoded
from onexn_plugins.tvm_backend.kernels.vector import Buffer, Expr, load, store

Write = Callable[[Expr, Expr, int], None]


@dataclass(frozen=True)
class Slice:
    """A run of input channels.

    Attributes:
        number: the how manyth it is.
        channels: how many they are.
        begins, ends: whether it is the first one and the last one.
    """

    number: Expr
    channels: int
    begins: bool
    ends: bool


def each_slice(blocks: Encoded, emit: Callable[[Slice], None]) -> None:
    """Emit code for the first, the middle ones and the last slice of in_slices."""
    last = blocks.slices - 1
    channels = blocks.pattern.in_channels - last * blocks.slice_channels
    if last:
        emit(Slice(0, blocks.slice_channels, begins=True, ends=False))
    if last > 1:
        with T.serial(1, last) as number:
            emit(Slice(number, blocks.slice_channels, begins=False, ends=False))
    emit(Slice(last, channels, begins=not last, ends=True))


def adding(sums: Buffer, part: Slice, finish: Write) -> Write:
    """Writes the sums of a slice: added to those before, which wait in `sums`; the last ones are finished."""

    def write(index: Expr, value: Expr, lanes: int) -> None:
        if not part.begins:
            value = value + load(sums, index, lanes)
        if part.ends:
            finish(index, value, lanes)
        else:
            store(sums, index, value, lanes)

    return write
