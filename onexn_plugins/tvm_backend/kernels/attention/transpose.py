"""Transposes of any permutation: runs are copied, and where rows become columns, blocks are turned in registers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import LINE, Expr, each_vector, load, store
from onexn_plugins.tvm_backend.kernels.matrices import Transpose
from onexn_plugins.tvm_backend.kernels.parts.sharing import COPY, each_shared_job
from onexn_plugins.tvm_backend.kernels.parts.turning import QUAD, turn_rows
from onexn_plugins.tvm_backend.kernels.problem import Kernel
from onexn_plugins.tvm_backend.kernels.request import Request


@dataclass(frozen=True)
class Axis:
    """An axis of the result: its size, and how far its elements are apart in the input and in the result."""

    size: int
    source: int
    target: int


def why_not_transpose(_request: Request) -> str | None:
    """None: it takes every order."""
    return None


def transpose(request: Request) -> Kernel:
    """Each axis of the result in turn; the one that is the input's last comes innermost beside the result's last."""
    problem, unit = request.first.problem, request.unit
    assert isinstance(problem, Transpose)
    *outer, last = axes_of(problem.shape, problem.order)
    side_by_side = next((axis for axis in outer if axis.source == 1), None)
    outer = [axis for axis in outer if axis is not side_by_side]
    # Short of a cache line LLVM turns what fits into a register.
    rows = min(LINE, 1 << (last.size.bit_length() - 1))
    turned = side_by_side is not None and rows >= QUAD and side_by_side.size >= QUAD
    steps = -(-last.size // rows) if turned else 1

    def emit(buffers: Buffers) -> None:
        y = buffers.output.y

        def emit_job(*job: Expr) -> None:
            *indices, step = job
            source, target = (_place(indices, [getattr(axis, name) for axis in outer]) for name in ("source", "target"))
            if side_by_side is None:
                assert last.source == 1, "some axis is the input's last"
                each_vector(last.size, unit.lanes,
                            lambda at, lanes: store(y, target + at, load(buffers.x, source + at, lanes), lanes))
            elif turned:
                first = tirx.min(step * rows, last.size - rows) if last.size % rows else step * rows
                turn_rows(buffers.x, lambda other: source + (first + other) * last.source, side_by_side.size, y,
                          target + first, side_by_side.target, rows)
            else:
                with T.serial(0, side_by_side.size) as column, T.serial(0, last.size) as row:
                    store(y, target + column * side_by_side.target + row,
                          load(buffers.x, source + row * last.source + column, 1), 1)

        sizes = [axis.size for axis in outer] + [steps]
        cost = COPY * math.prod(problem.shape) / math.prod(sizes)
        each_shared_job(sizes, cost, unit.threads, emit_job)

    return build("transpose", problem.input_shape, problem.output_shape, {}, emit, unit)


def axes_of(shape: Sequence[int], order: Sequence[int]) -> list[Axis]:
    """The result's axes, without those of one element, and those that stay neighbours as one."""
    kept = [axis for axis in order if shape[axis] > 1]
    source = [math.prod(shape[axis + 1:]) for axis in kept]
    found: list[Axis] = []
    for size, stride in reversed(list(zip([shape[axis] for axis in kept], source, strict=True))):
        inner = found[-1] if found else None
        if inner is not None and stride == inner.size * inner.source:
            found[-1] = Axis(size * inner.size, inner.source, inner.target)
        else:
            found.append(Axis(size, stride, math.prod(axis.size for axis in found)))
    return found[::-1] or [Axis(1, 1, 1)]


def _place(indices: Sequence[Expr], strides: Sequence[int]) -> Expr:
    start: Expr = 0
    return reduce(lambda place, step: place + step[0] * step[1], zip(indices, strides, strict=True), start)
