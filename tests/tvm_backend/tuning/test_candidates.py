"""Which layers are one problem, and which tiles are tried for it."""

from __future__ import annotations

import numpy as np
import pytest

from onexn_plugins.tvm_backend.kernels.parts.tiling import default_tile
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Linear, Tile
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.planning.task import Choice, Task
from onexn_plugins.tvm_backend.tuning.candidates import candidates
from onexn_plugins.tvm_backend.tuning.problem import kept_shares, own_block_size, problem_of

AVX512, NEON = VectorUnit(16, 32), VectorUnit(4, 32, True)
PROBLEM = Conv(1, 40, 14, 14, 32)


def a_task(block_size: int, kept: float, problem: Conv | Linear = PROBLEM, seed: int = 0, **rest) -> Task:
    """A layer with that share of its 1×N blocks, drawn at random."""
    random = np.random.default_rng(seed)
    rows, inputs = -(-problem.weight_shape[0] // block_size), problem.weight_shape[1]
    keep = np.zeros(rows * inputs, bool)
    keep[random.permutation(rows * inputs)[: round(rows * inputs * kept)]] = True
    mask = np.repeat(keep.reshape(rows, inputs), block_size, 0)[: problem.weight_shape[0]]
    weight = np.broadcast_to(mask.reshape(*mask.shape, *(1 for _ in problem.weight_shape[2:])), problem.weight_shape)
    bias = np.zeros(problem.weight_shape[0], np.float32)
    return Task(problem, weight.astype(np.float32), bias, rest.pop("epilogue", Epilogue()), **rest)


def default(task: Task, sparse: bool, block_size: int, unit: VectorUnit = AVX512) -> Choice:
    return Choice(sparse, default_tile(task.problem, block_size, unit))


def test_equal_problems_are_one_whatever_the_weights():
    assert problem_of(a_task(4, 0.25)) == problem_of(a_task(4, 0.26, seed=1))


@pytest.mark.parametrize("other", [
    a_task(4, 0.5), a_task(8, 0.25), a_task(4, 1.0), a_task(4, 0.25, Conv(1, 40, 14, 28, 32)),
    a_task(4, 0.25, Conv(2, 40, 14, 14, 32)), a_task(4, 0.25, Conv(1, 40, 14, 14, 32, stride=(2, 2))),
    a_task(4, 0.25, epilogue=Epilogue(True)), a_task(4, 0.25, epilogue=Epilogue(activation="relu")),
    a_task(4, 0.25, depthwise=a_task(1, 1.0, Conv(1, 32, 14, 14, 32, (3, 3), padding=(1, 1, 1, 1), groups=32))),
    a_task(4, 0.25, Linear(1, 40, 32)),
], ids=problem_of)
def test_others_are_not(other):
    assert problem_of(other) != problem_of(a_task(4, 0.25))


def test_the_layers_own_blocks_are_found():
    assert own_block_size(kept_shares(a_task(8, 0.3))) == 8
    assert own_block_size(kept_shares(a_task(4, 0.3))) == 4
    assert own_block_size(kept_shares(a_task(4, 1.0))) == 32


def test_smaller_blocks_of_a_sparse_layer_are_tried_but_no_dense_kernel():
    task = a_task(8, 0.25)
    found = candidates(task, default(task, True, 8), AVX512)
    assert {choice.tile.block_size for choice in found} == {2, 4, 8}
    assert all(choice.sparse for choice in found)
    assert found[0].tile.block_size == 8
    assert default(task, True, 8) not in found
    assert len(set(found)) == len(found) < 20


def test_near_the_threshold_both_kinds_are_tried():
    task = a_task(4, 0.75)
    for sparse in (True, False):
        found = candidates(task, default(task, sparse, 4), AVX512)
        assert {choice.sparse for choice in found} == {True, False}


def test_a_dense_layer_is_tried_dense():
    task = a_task(4, 1.0)
    assert not any(choice.sparse for choice in candidates(task, default(task, False, 4), AVX512))


@pytest.mark.parametrize("unit", [AVX512, NEON, VectorUnit(8, 16), VectorUnit(4, 16, True)])
def test_tiles_fit_the_registers(unit):
    task = a_task(4, 0.25)
    for choice in candidates(task, default(task, True, 4, unit), unit):
        channels, vectors = min(choice.tile.block_size, unit.registers // 2), choice.tile.vectors
        assert channels * vectors + vectors <= unit.registers


def test_tiles_that_make_the_same_kernel_are_tried_once():
    task = a_task(4, 0.25, Conv(1, 40, 4, 4, 32))  # one vector of pixels: wider tiles are never filled
    found = candidates(task, default(task, True, 4), AVX512)
    assert all(choice.tile.block_size != 4 for choice in found)


def test_linear_layers_have_blocks_to_choose_alone():
    task = a_task(4, 0.25, Linear(1, 40, 64))
    found = candidates(task, default(task, True, 8), AVX512)
    assert {choice.tile.block_size for choice in found} >= {2, 4}
    assert len({choice.tile.block_size for choice in found}) == len(found)


def test_a_tile_no_kernel_can_be_written_for_is_left_out(monkeypatch):
    task = a_task(4, 0.25)
    built = Task.kernel

    def kernel(self, unit, choice):
        if choice.tile == Tile(4, 3):
            raise RuntimeError("TVM refuses")
        return built(self, unit, choice)

    monkeypatch.setattr(Task, "kernel", kernel)
    found = candidates(task, default(task, True, 4), AVX512)
    assert Choice(True, Tile(4, 5)) in found
    assert Choice(True, Tile(4, 3)) not in found
