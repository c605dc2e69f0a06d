"""Softmax, layer norm and instance norm: row after row, each read from a cache after its first pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.exponential import exponential
from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import (
    Buffer,
    Expr,
    Register,
    constant,
    each_vector,
    largest_lane,
    load,
    maximum,
    pieces,
    splat,
    store,
    sum_lanes,
)
from onexn_plugins.tvm_backend.kernels.matrices import InstanceNorm, LayerNorm, Softmax
from onexn_plugins.tvm_backend.kernels.parts.sharing import COPY, each_shared_job
from onexn_plugins.tvm_backend.kernels.problem import Kernel
from onexn_plugins.tvm_backend.kernels.request import Problem, Request
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Independent sums hide the latency of an addition.
_WAYS = 4
# Multiply-adds that take as long as the exponential of one value.
_EXPONENTIAL = 12


def why_not_softmax(request: Request) -> str | None:
    """None along the last axis."""
    return why_not_along_rows(request.first.problem)


def why_not_along_rows(problem: Problem) -> str | None:
    """None for a softmax along the last axis."""
    assert isinstance(problem, Softmax)
    return None if problem.axis in (-1, len(problem.shape) - 1) else "not along the last axis"


def softmax(request: Request) -> Kernel:
    """exp(x - largest of the row) over its sum. Rows with NaN or plus infinity, or with nothing but minus infinity,
    become NaN, as the definition has it."""
    problem, unit = request.first.problem, request.unit
    assert isinstance(problem, Softmax)
    size = problem.row_size

    def emit(buffers: Buffers) -> None:
        y = buffers.output.y

        def emit_row(row: Expr) -> None:
            share = Register(exponentials(buffers.x, row * size, y, row * size, size, unit), 1)

            def scale(position: Expr, lanes: int) -> None:
                place = row * size + position
                store(y, place, load(y, place, lanes) * splat(share.value, lanes), lanes)

            each_vector(size, unit.lanes, scale)

        each_shared_job((problem.rows,), float(size * _EXPONENTIAL), unit.threads, emit_row)

    return build("softmax", problem.input_shape, problem.output_shape, {}, emit, unit)


def exponentials(source: Buffer, first: Expr, target: Buffer, to: Expr, count: int, unit: VectorUnit) -> Expr:
    """Write exp(x - largest) of a row, and give one over their sum."""
    largest = Register(_reduced(count, unit, float("-inf"), lambda position, lanes: load(
        source, first + position, lanes), lambda left, right, lanes: maximum(left, right, lanes, unit),
        lambda register: largest_lane(register, unit)), 1)

    def power(position: Expr, lanes: int) -> Expr:
        below = load(source, first + position, lanes) - splat(largest.value, lanes)
        value = Register(exponential(below, lanes, unit), lanes)
        store(target, to + position, value.value, lanes)
        return value.value

    return constant(1) / _sum(count, unit, power)


def why_not_layer_norm(request: Request) -> str | None:
    """None with a scale for each element of a row, and a shift or none."""
    stage, problem = request.first, request.first.problem
    assert isinstance(problem, LayerNorm)
    known = [array for array in (stage.scale, stage.shift) if array is not None]
    if stage.scale is None or any(array.shape != (problem.row_size,) for array in known):
        return "its scale is not one constant for each element of a row"
    return None


def layer_norm(request: Request) -> Kernel:
    """Mean, then the mean of squared distances from it, then each element."""
    stage, problem, unit = request.first, request.first.problem, request.unit
    assert isinstance(problem, LayerNorm)
    assert stage.scale is not None
    size = problem.row_size
    constants: dict[str, np.ndarray] = {"scale": stage.scale}
    if stage.shift is not None:
        constants["shift"] = stage.shift

    def emit(buffers: Buffers) -> None:
        def emit_row(row: Expr) -> None:
            first = row * size
            normed = _normed(buffers.x, first, size, problem.epsilon, unit)

            def finish(position: Expr, lanes: int) -> None:
                value = normed(position, lanes) * load(buffers.constants["scale"], position, lanes)
                if "shift" in buffers.constants:
                    value = value + load(buffers.constants["shift"], position, lanes)
                store(buffers.output.y, first + position, value, lanes)

            each_vector(size, unit.lanes, finish)

        each_shared_job((problem.rows,), float(size * COPY), unit.threads, emit_row)

    return build("layer_norm", problem.input_shape, problem.output_shape, constants, emit, unit)


def why_not_instance_norm(request: Request) -> str | None:
    """None with a scale and a shift for each channel."""
    stage, problem = request.first, request.first.problem
    assert isinstance(problem, InstanceNorm)
    if any(array is None or array.shape != problem.shape[1:2] for array in (stage.scale, stage.shift)):
        return "its scale and shift are not one constant for each channel"
    return None


def instance_norm(request: Request) -> Kernel:
    """As layer norm, with one scale and shift for a row; then the residual and activation."""
    stage, problem, unit = request.first, request.first.problem, request.unit
    assert isinstance(problem, InstanceNorm)
    assert stage.scale is not None
    assert stage.shift is not None
    size, channels = problem.row_size, problem.shape[1]

    def emit(buffers: Buffers) -> None:
        def emit_row(image: Expr, channel: Expr) -> None:
            first = (image * channels + channel) * size
            normed = _normed(buffers.x, first, size, problem.epsilon, unit)
            scale, shift = (Register(buffers.constants[name][channel], 1) for name in ("scale", "shift"))
            each_vector(size, unit.lanes, lambda position, lanes: buffers.output.store(
                first + position, normed(position, lanes) * splat(scale.value, lanes) + splat(shift.value, lanes),
                lanes))

        each_shared_job(problem.shape[:2], float(size * COPY), unit.threads, emit_row)

    return build("instance_norm", problem.input_shape, problem.output_shape,
                 {"scale": stage.scale, "shift": stage.shift}, emit, unit, stage.epilogue, over_residual=True)


def _normed(x: Buffer, first: Expr, size: int, epsilon: float, unit: VectorUnit) -> Callable[[Expr, int], Expr]:
    """Sum a row up; the result gives its vectors less their mean, over the root of the variance and epsilon."""
    mean = Register(_sum(size, unit, lambda position, lanes: load(x, first + position, lanes)) * constant(1 / size), 1)

    def distance(position: Expr, lanes: int) -> Expr:
        return Register(load(x, first + position, lanes) - splat(mean.value, lanes), lanes).value

    def squared(position: Expr, lanes: int) -> Expr:
        value = distance(position, lanes)
        return value * value

    variance = _sum(size, unit, squared) * constant(1 / size)
    inverse = Register(constant(1) / tirx.sqrt(variance + constant(epsilon)), 1)
    return lambda position, lanes: distance(position, lanes) * splat(inverse.value, lanes)


def _sum(count: int, unit: VectorUnit, value: Callable[[Expr, int], Expr]) -> Expr:
    return _reduced(count, unit, 0.0, value, lambda left, right, _: left + right, sum_lanes)


def _reduced(count: int, unit: VectorUnit, start: float, value: Callable[[Expr, int], Expr],
             combine: Callable[[Expr, Expr, int], Expr], lanes_of: Callable[[Register], Expr]) -> Expr:
    """All values of a row as one; `value` is asked for each vector once, in order."""
    lanes = unit.lanes
    vectors, rest = divmod(count, lanes)
    ways = min(_WAYS, vectors)
    totals = [Register(constant(start, lanes), lanes) for _ in range(ways)]

    def take(total: Register, position: Expr) -> None:
        total.set(combine(value(position, lanes), total.value, lanes))

    if ways and vectors // ways:
        with T.serial(0, vectors // ways) as index:
            for way, total in enumerate(totals):
                take(total, (index * ways + way) * lanes)
    for way in range(vectors % ways if ways else 0):
        take(totals[way], (vectors - vectors % ways + way) * lanes)
    if not totals:
        result: Expr = constant(start)
    else:
        while len(totals) > 1:
            totals[-2].set(combine(totals[-2].value, totals[-1].value, lanes))
            totals.pop()
        result = lanes_of(totals[0])
    position = vectors * lanes
    for width in pieces(rest, lanes):
        result = combine(lanes_of(Register(value(position, width), width)), Register(result, 1).value, 1)
        position += width
    return result
