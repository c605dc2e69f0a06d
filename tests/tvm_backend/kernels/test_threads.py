"""Kernels shared by threads give what one thread gives, bit by bit, and small ones stay serial."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import tvm

from benchmarks.common.requests import single, stage
from onexn_plugins.tvm_backend.kernels.choose import kernel_of
from onexn_plugins.tvm_backend.kernels.conv.packed import packed
from onexn_plugins.tvm_backend.kernels.conv.sliced import sliced
from onexn_plugins.tvm_backend.kernels.pairs import geometry
from onexn_plugins.tvm_backend.kernels.parts import sharing
from onexn_plugins.tvm_backend.kernels.problem import Conv, Conv3d, Epilogue, GlobalPool, Linear, Pool, Tile, Transposed
from onexn_plugins.tvm_backend.kernels.winograd.kernel import winograd
from onexn_plugins.tvm_backend.running.threadpool import use_threads
from tests.tvm_backend.kernels.bounds import with_bounds_checks
from tests.tvm_backend.kernels.differential import (
    AVX2,
    AVX512,
    NEON,
    compile_functions,
    conv,
    depthwise,
    guarded,
    linear,
    pair,
    pooling,
    random_array,
    random_weight,
)
from tests.tvm_backend.kernels.pairs.test_pairs import depthwise_after

RESIDUAL, RELU6 = Epilogue(residual=True, activation="relu"), Epilogue(activation="relu6")
CONVS = {
    "1x1": Conv(1, 19, 14, 14, 23),
    "1x1, one pixel": Conv(1, 40, 1, 1, 50),
    "1x1, images": Conv(3, 8, 7, 9, 6),
    "1x1, groups": Conv(2, 24, 5, 5, 30, groups=6),
    "1x1, one row": Conv(1, 9, 31, 17, 3),
    "3x3": Conv(1, 7, 20, 13, 21, (3, 3), padding=(1, 1, 1, 1)),
    "3x3, few rows": Conv(1, 30, 3, 3, 40, (3, 3), padding=(1, 1, 1, 1)),
    "3x3, stride, images": Conv(2, 3, 33, 31, 10, (3, 3), (2, 2), (1, 1, 1, 1)),
    "3x3, groups": Conv(1, 32, 9, 9, 32, (3, 3), padding=(1, 1, 1, 1), groups=8),
    "1x1, stride": Conv(1, 17, 15, 15, 22, stride=(2, 2)),
    "4x4, transposed": Transposed(1, 19, 9, 8, 22, (4, 4), (2, 2), (1, 1, 1, 1), size=(18, 16)),
    "3x3, transposed, images": Transposed(2, 12, 9, 7, 10, (3, 3), (3, 2), groups=2, size=(26, 15)),
    "1x3, one row": Conv(1, 9, 1, 131, 30, (1, 3), padding=(0, 2, 0, 2), dilation=(1, 2)),
    "3x3x3": Conv3d(1, 7, 5, 13, 21, (3, 3), padding=(1, 1, 1, 1), depth=4, frames=3, frame_padding=(1, 1)),
    "3x3, dilated far, groups": Conv(2, 8, 9, 9, 12, (3, 3), padding=(6, 6, 6, 6), dilation=(6, 6), groups=4),
}
SLICED = {
    "packed": (packed, Conv(1, 19, 14, 14, 23), 1),
    "packed, slices": (packed, Conv(2, 40, 7, 9, 22), 3),
    "packed, stride, slices": (packed, Conv(1, 40, 15, 15, 22, stride=(2, 2)), 2),
    "packed, stride, groups": (packed, Conv(2, 24, 9, 9, 30, stride=(2, 2), groups=6), 2),
    "sliced 3x3, stride": (sliced, Conv(1, 20, 17, 15, 21, (3, 3), (2, 2), (1, 1, 1, 1)), 2),
    "sliced 3x3, groups": (sliced, Conv(2, 32, 9, 9, 32, (3, 3), padding=(1, 1, 1, 1), groups=8), 3),
}
WINOGRAD = {
    "3x3": Conv(1, 7, 9, 11, 21, (3, 3), padding=(1, 1, 1, 1)),
    "3x3, groups": Conv(2, 12, 8, 7, 18, (3, 3), padding=(1, 1, 1, 1), groups=3),
    "7x7, stride": Conv(1, 3, 20, 22, 21, (7, 7), (2, 2), (3, 3, 3, 3)),
}
HIDDEN = {
    "1x1, wide": (Conv(1, 5, 25, 32, 9), 1),
    "1x1, wide, halved": (Conv(1, 5, 27, 32, 9), 2),
    "1x1": (Conv(1, 6, 16, 16, 26), 1),
    "1x1, images": (Conv(2, 6, 7, 7, 9), 1),
    "1x1, narrow": (Conv(1, 6, 7, 7, 26), 1),
    "1x1, narrow, high": (Conv(1, 60, 40, 7, 3), 1),
    "1x1, narrow, halved": (Conv(1, 60, 28, 28, 3), 2),
    "1x1, groups": (Conv(1, 12, 17, 16, 24, groups=4), 2),
    "3x3": (Conv(1, 3, 32, 32, 18, (3, 3), padding=(1, 1, 1, 1)), 1),
    "3x3, groups": (Conv(1, 12, 8, 9, 24, (3, 3), padding=(1, 1, 1, 1), groups=4), 2),
}


def problems():
    """(name, shape of x, shape of y, whether there is a residual, a kernel for a vector unit)."""
    rng = np.random.default_rng(0)
    for name, problem in CONVS.items():
        arrays = random_weight(problem, 4, 0.4, rng), random_array((problem.out_channels,), rng)
        yield (f"conv {name}", problem.input_shape, problem.output_shape, True,
               lambda unit, p=problem, a=arrays: conv(p, *a, RESIDUAL, unit, Tile(4, 2)))
    for name, (build, problem, slices) in SLICED.items():
        arrays = random_weight(problem, 4, 0.4, rng), random_array((problem.out_channels,), rng)
        yield (name, problem.input_shape, problem.output_shape, True,
               lambda unit, f=build, p=problem, a=arrays, s=slices: f(single(p, *a, RESIDUAL, unit, Tile(4, 2)), s))
    for outputs, (name, problem) in zip((4, 2, 2), WINOGRAD.items(), strict=True):
        arrays = random_weight(problem, 4, 0.4, rng), random_array((problem.out_channels,), rng)
        yield (f"winograd {name}", problem.input_shape, problem.output_shape, True,
               lambda unit, p=problem, a=arrays, o=outputs: winograd(
                   single(p, *a, RESIDUAL, unit, Tile(4, 2)), o))
    for name, (problem, stride) in HIDDEN.items():
        after = depthwise_after(problem, 3, stride)
        arrays = random_weight(problem, 4, 0.5, rng), random_array((problem.out_channels,), rng)
        more = random_array(after.weight_shape, rng), random_array((problem.out_channels,), rng)
        yield (f"fused {name}", problem.input_shape, after.output_shape, False,
               lambda unit, p=problem, a=arrays, d=after, m=more: kernel_of(
                   pair((p, *a, RELU6), (d, *m, RELU6), unit, Tile(4, 2))))
    for batch in (1, 3, 70, 300):
        problem = Linear(batch, 70, 45)
        arrays = random_weight(problem, 8, 0.5, rng), random_array((45,), rng)
        yield (f"linear, {batch} rows", problem.input_shape, problem.output_shape, False,
               lambda unit, p=problem, a=arrays: linear(p, *a, RELU6, unit, Tile(8, 1)))
    deep = Conv(2, 5, 12, 11, 5, (3, 3), padding=(1, 1, 1, 1), groups=5)
    arrays = random_array(deep.weight_shape, rng), random_array((5,), rng)
    yield ("depthwise", deep.input_shape, deep.output_shape, False,
           lambda unit: depthwise(deep, *arrays, RELU6, unit))
    pool = Pool("average", 1, 7, 13, 12, (3, 3), (2, 2), (1, 1, 1, 1))
    yield "pool", pool.input_shape, pool.output_shape, False, lambda unit: pooling(pool, unit)
    means = GlobalPool(2, 5, 7, 7)
    yield "mean", means.input_shape, means.output_shape, False, lambda unit: pooling(means, unit)


def projections():
    """As problems, of AVX-512 alone."""
    rng = np.random.default_rng(0)
    for outputs, kept in ((40, 0.1), (400, 1.0)):  # bands for the first cache and for the second
        problem = Conv(1, 18, 57, 48, outputs)
        after = depthwise_after(problem, 3, 2)
        last = Conv(1, outputs, after.out_height, after.out_width, 11)
        arrays = random_weight(problem, 4, kept, rng), random_array((outputs,), rng)
        more = random_array(after.weight_shape, rng), random_array((outputs,), rng)
        after_all = stage(last, random_weight(last, 4, 0.5, rng), arrays[1][:11], RESIDUAL, Tile(4, 2))
        yield (f"projection of {outputs}", problem.input_shape, last.output_shape, True,
               lambda unit, p=problem, a=arrays, d=after, m=more, z=after_all: kernel_of(
                   pair((p, *a, RELU6), (d, *m, RELU6), unit, Tile(4, 2), z)))


@pytest.fixture
def no_threshold(monkeypatch):
    monkeypatch.setattr(sharing, "LAUNCH", 0)


# Every problem on one vector unit: how work is shared does not depend on it, and each compiles three times.
@pytest.mark.parametrize(("unit", "threads", "chosen"), [
    (AVX512, 2, list(problems())[::3]), (AVX2, 3, list(problems())[1::3]), (NEON, 4, list(problems())[2::3]),
    (AVX512, 3, list(projections())),
])
def test_shared_kernels_give_the_same_bits(unit, threads, chosen, no_threshold, monkeypatch):
    monkeypatch.setattr(geometry, "_LEAST_PROJECTED", 0)
    made = {f"kernel_{index}": problem for index, problem in enumerate(chosen)}
    built = {f"{name}_{count}": make(replace(unit, threads=count))
             for count in (1, threads) for name, (*_, make) in made.items()}
    functions = {name: kernel.func.with_attr("global_symbol", name) for name, kernel in built.items()}
    shared = [name for name in built if is_shared(functions[name])]
    assert len(shared) >= len(made) - 1, "nearly all of these kernels are shared"
    assert not any(name.endswith("_1") for name in shared)
    module = compile_functions(functions)
    careful = compile_functions({name: with_bounds_checks(functions[name]) for name in shared}, optimise=False)
    use_threads(threads)
    rng = np.random.default_rng(1)
    for name, (title, x_shape, y_shape, residual, _) in made.items():
        x, added = random_array(x_shape, rng), [random_array(y_shape, rng)] if residual else []
        alone, together = (run(module[one], [x, *built[one].constants, *added], y_shape)
                           for one in (f"{name}_1", f"{name}_{threads}"))
        assert np.isfinite(alone).all(), title
        np.testing.assert_array_equal(alone, together, title)
        if (name := f"{name}_{threads}") in shared:  # no access may be outside of its buffer
            checked = run(careful[name], [x, *built[name].constants, *added], y_shape)
            np.testing.assert_allclose(checked, together, rtol=1e-4, atol=1e-4, err_msg=title)


def run(function, inputs, shape):
    """The output, which begins as NaNs; every buffer lies between NaNs."""
    output = guarded(np.full(shape, np.nan, np.float32))[1]
    function(*map(tvm.runtime.from_dlpack, [*(guarded(array)[1] for array in inputs), output]))
    return output


def is_shared(func):
    return "T.parallel(" in func.script()


def test_threads_leave_the_affinity_of_the_program_alone():
    before = os.sched_getaffinity(0)
    use_threads(3)
    assert os.sched_getaffinity(0) == before
    assert "TVM_BIND_THREADS" not in os.environ


def test_small_kernels_stay_serial():
    problem = Conv(1, 8, 4, 4, 8)
    weight, bias = np.ones(problem.weight_shape, np.float32), np.ones(8, np.float32)
    alone, together = (conv(problem, weight, bias, Epilogue(), replace(AVX512, threads=threads))
                       for threads in (1, 4))
    tvm.ir.assert_structural_equal(alone.func, together.func)


@pytest.mark.parametrize(("costs", "threads", "starts"), [
    ([1, 1, 1, 1], 2, (0, 2, 4)),
    ([9, 1, 1, 1], 2, (0, 1, 4)),
    ([1, 1, 1, 9], 2, (0, 3, 4)),
    ([5, 1, 3, 1, 4, 4], 3, (0, 2, 4, 6)),
    ([1, 1], 4, (0, 1, 2)),
    ([7], 3, (0, 1)),
])
def test_runs_are_balanced_by_their_cost(costs, threads, starts):
    assert sharing.balanced(np.array(costs), threads) == starts
