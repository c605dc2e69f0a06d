"""Phases of an output row, summed apart, become the row: every stride-th value is of the same phase."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Output
from onexn_plugins.tvm_backend.kernels.code.vector import (
    Buffer,
    Expr,
    Register,
    Term,
    each_strip,
    load,
    part,
    shuffle,
    store,
)
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Strides under which vectors of all phases are shuffled into the row; else the row is laid out value by value.
_SHUFFLED = (2, 4, 8)


def row_scratch(stride: int, width: int) -> Buffer | None:
    """What store_row needs besides, allocated outside of its loops."""
    return None if stride == 1 or stride in _SHUFFLED else T.alloc_buffer((width,), "float32", scope="global")


def store_row(sums: Buffer, base: Expr, phase_stride: int, stride: int, output: Output, first: Expr, width: int,
              scratch: Buffer | None, unit: VectorUnit) -> None:
    """Finish a row of `width` outputs and write it from flat index `first` on.

    Args:
        sums: value i of phase h is sums[base + h * phase_stride + i].
        base: see sums.
        phase_stride: see sums.
        stride: how many phases there are.
        output: finishes.
        first: see above.
        width: outputs of the row.
        scratch: from row_scratch.
        unit: vector registers.
    """
    if stride == 1:
        each_strip(width, unit.lanes, lambda at, lanes: output.store(first + at, load(sums, base + at, lanes), lanes))
    elif scratch is None:
        _shuffled(sums, base, phase_stride, stride, output, first, width, unit)
    else:
        _laid_out(sums, base, phase_stride, stride, scratch, width, unit)
        each_strip(width, unit.lanes, lambda at, lanes: output.store(first + at, load(scratch, at, lanes), lanes))


def _shuffled(sums: Buffer, base: Expr, phase_stride: int, stride: int, output: Output, first: Expr, width: int,
              unit: VectorUnit) -> None:
    full, left = divmod(width, stride)

    def emit(at: Expr, lanes: int) -> None:
        vectors = [load(sums, base + phase * phase_stride + at, lanes) for phase in range(stride)]
        whole, step = Register(_zipped(vectors, lanes), stride * lanes), min(unit.lanes, stride * lanes)
        for start in range(0, stride * lanes, step):
            output.store(first + at * stride + start, part(whole, start, step), step)

    if full:
        each_strip(full, unit.lanes, emit)
    for phase in range(left):
        value = load(sums, base + phase * phase_stride + full, 1)
        output.store(first + (full * stride + phase), value, 1)


def _zipped(vectors: Sequence[Term], lanes: int) -> Term:
    """The first lanes of all vectors, then the second ones ...; there are two, four, eight ... vectors."""
    if len(vectors) == 1:
        return vectors[0]
    halves = [_zipped(vectors[start::2], lanes) for start in (0, 1)]
    count = lanes * len(vectors) // 2
    return shuffle(halves, [lane + half * count for lane in range(count) for half in (0, 1)])


def _laid_out(sums: Buffer, base: Expr, phase_stride: int, stride: int, scratch: Buffer, width: int,
              unit: VectorUnit) -> None:
    for phase in range(min(stride, width)):
        def emit(at: Expr, lanes: int, phase: int = phase) -> None:
            value = load(sums, base + phase * phase_stride + at, lanes)
            if lanes == 1:
                store(scratch, at * stride + phase, value, 1)
            else:
                T.buffer_store(scratch, value, [tirx.Ramp(at * stride + phase, stride, lanes)])

        each_strip(-(-(width - phase) // stride), unit.lanes, emit)
