"""Which layers are one problem, and which tiles are tried for it."""

from __future__ import annotations

import numpy as np
import pytest

from onexn_plugins.tvm_backend.kernels.choose import kernel_of
from onexn_plugins.tvm_backend.kernels.cores import CORES
from onexn_plugins.tvm_backend.kernels.parts.tiling import default_tile
from onexn_plugins.tvm_backend.kernels.problem import Choice, Conv, Epilogue, Kernel, Linear, Tile, Transposed
from onexn_plugins.tvm_backend.kernels.request import Request, Stage, Weights
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.tuning import candidates as module
from onexn_plugins.tvm_backend.tuning.candidates import candidates
from onexn_plugins.tvm_backend.tuning.problem import kept_shares, own_block_size, problem_of

AVX512, NEON = CORES["avx512"], CORES["cortex-a72"]
PROBLEM = Conv(1, 40, 14, 14, 32)


def a_request(block_size: int, kept: float, problem: Conv | Linear = PROBLEM, seed: int = 0, *,
              epilogue: Epilogue | None = None, then: Request | None = None, unit: VectorUnit = AVX512) -> Request:
    """A layer with that share of its 1×N blocks, drawn at random, and what is computed with it."""
    random = np.random.default_rng(seed)
    rows, inputs = -(-problem.weight_shape[0] // block_size), problem.weight_shape[1]
    keep = np.zeros(rows * inputs, bool)
    keep[random.permutation(rows * inputs)[: round(rows * inputs * kept)]] = True
    mask = np.repeat(keep.reshape(rows, inputs), block_size, 0)[: problem.weight_shape[0]]
    weight = np.broadcast_to(mask.reshape(*mask.shape, *(1 for _ in problem.weight_shape[2:])), problem.weight_shape)
    weights = Weights(weight.astype(np.float32), np.zeros(problem.weight_shape[0], np.float32),
                      problem.groups if isinstance(problem, Conv) else 1)
    return Request((Stage(problem, weights, epilogue or Epilogue()), *(then.stages if then else ())), unit)


def default(request: Request, sparse: bool, block_size: int) -> Choice:
    return Choice(sparse, default_tile(request.first.problem, block_size, request.unit))


def test_equal_problems_are_one_whatever_the_weights():
    assert problem_of(a_request(4, 0.25)) == problem_of(a_request(4, 0.26, seed=1))


@pytest.mark.parametrize("other", [
    a_request(4, 0.5), a_request(8, 0.25), a_request(4, 1.0), a_request(4, 0.25, Conv(1, 40, 14, 28, 32)),
    a_request(4, 0.25, Conv(2, 40, 14, 14, 32)), a_request(4, 0.25, Conv(1, 40, 14, 14, 32, stride=(2, 2))),
    a_request(4, 0.25, epilogue=Epilogue(True)), a_request(4, 0.25, epilogue=Epilogue(activation="relu")),
    a_request(4, 0.25, then=a_request(1, 1.0, Conv(1, 32, 14, 14, 32, (3, 3), padding=(1, 1, 1, 1), groups=32))),
    a_request(4, 0.25, Linear(1, 40, 32)), a_request(4, 0.25, Transposed(1, 40, 14, 14, 32, size=(14, 14))),
], ids=problem_of)
def test_others_are_not(other):
    assert problem_of(other) != problem_of(a_request(4, 0.25))


def test_the_layers_own_blocks_are_found():
    assert own_block_size(kept_shares(a_request(8, 0.3).first)) == 8
    assert own_block_size(kept_shares(a_request(4, 0.3).first)) == 4
    assert own_block_size(kept_shares(a_request(4, 1.0).first)) == 32


def test_smaller_blocks_of_a_sparse_layer_are_tried_but_no_dense_kernel():
    request = a_request(8, 0.25)
    found = candidates(request, default(request, True, 8))
    assert {choice.tile.block_size for choice in found} == {2, 4, 8}
    assert all(choice.sparse for choice in found)
    assert found[0].tile.block_size == 8
    assert default(request, True, 8) not in found
    assert len(set(found)) == len(found) < 20


def test_near_the_threshold_both_kinds_are_tried():
    request = a_request(4, 0.75)
    for sparse in (True, False):
        found = candidates(request, default(request, sparse, 4))
        assert {choice.sparse for choice in found} == {True, False}


def test_a_dense_layer_is_tried_dense():
    request = a_request(4, 1.0)
    assert not any(choice.sparse for choice in candidates(request, default(request, False, 4)))


@pytest.mark.parametrize("unit", [AVX512, NEON, CORES["avx2"], CORES["cortex-a7"]])
def test_tiles_fit_the_registers(unit):
    request = a_request(4, 0.25, unit=unit)
    for choice in candidates(request, default(request, True, 4)):
        channels, vectors = min(choice.tile.block_size, unit.registers // 2), choice.tile.vectors
        assert channels * vectors + vectors <= unit.registers


def test_tiles_that_make_the_same_kernel_are_tried_once():
    request = a_request(4, 0.25, Conv(1, 40, 4, 4, 32))  # one vector of pixels: wider tiles are never filled
    found = candidates(request, default(request, True, 4))
    assert all(choice.tile.block_size != 4 for choice in found)


def test_linear_layers_have_blocks_to_choose_alone():
    request = a_request(4, 0.25, Linear(1, 40, 64))
    found = candidates(request, default(request, True, 8))
    assert {choice.tile.block_size for choice in found} >= {2, 4}
    assert len({choice.tile.block_size for choice in found}) == len(found)


def test_a_tile_no_kernel_can_be_written_for_is_left_out(monkeypatch):
    request = a_request(4, 0.25)

    def kernel(asked: Request) -> Kernel:
        if asked.first.tile == Tile(4, 3):
            raise RuntimeError("TVM refuses")
        return kernel_of(asked)

    monkeypatch.setattr(module, "kernel_of", kernel)
    found = candidates(request, default(request, True, 4))
    assert Choice(True, Tile(4, 5)) in found
    assert Choice(True, Tile(4, 3)) not in found
