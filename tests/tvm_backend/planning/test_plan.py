"""Sparse or dense, and in blocks of which size."""

from __future__ import annotations

import numpy as np
import pytest

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.kernels.cores import CORES
from onexn_plugins.tvm_backend.kernels.problem import Conv, Linear
from onexn_plugins.tvm_backend.kernels.request import Weights
from onexn_plugins.tvm_backend.planning.plan import Decision, Planner

AVX512 = CORES["avx512"]


def weight(block_size: int, kept: float, out_channels: int = 32, kernel: tuple[int, ...] = (3, 3)) -> np.ndarray:
    """[out, 40, *kernel] with that share of its 1×N blocks, spread evenly over each block row."""
    rows = -(-out_channels // block_size)
    keep = np.zeros((rows, 40), bool)
    for row in range(rows):
        keep[row, np.random.default_rng(row).permutation(40)[: round(40 * kept)]] = True
    mask = np.repeat(keep, block_size, 0)[:out_channels].reshape(out_channels, 40, *(1 for _ in kernel))
    return np.ones((out_channels, 40, *kernel), np.float32) * mask


def decide(values: np.ndarray, forced: int | None = None, recorded: dict | None = None, *,
           rows: int | None = None) -> Decision:
    patterns = {} if recorded is None else {"w": recorded}
    return Planner(AVX512, forced, patterns).decide(layer(values, rows), Weights(values, values), "w")


def layer(values: np.ndarray, rows: int | None = None) -> Conv | Linear:
    """The layer of a weight: linear with so many rows, else a convolution."""
    if rows is not None:
        return Linear(rows, values.shape[1], values.shape[0])
    return Conv(1, values.shape[1], 14, 14, values.shape[0], (*values.shape[2:], 1, 1)[:2])


@pytest.mark.parametrize("block_size", [4, 8, 16, 32])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_the_block_size_is_found(block_size: int, kept: float) -> None:
    decision = decide(weight(block_size, kept))
    assert (decision.sparse, decision.block_size) == (True, block_size)
    assert decision.kept == pytest.approx(kept)


def test_a_dense_layer_stays_dense() -> None:
    decision = decide(weight(4, 1.0))
    assert (decision.sparse, decision.kept, decision.reason) == (False, 1.0, "no zero kernel")


def test_few_zero_blocks_are_not_worth_it() -> None:
    decision = decide(weight(4, 0.975))
    assert not decision.sparse
    assert "too many to be faster than dense" in decision.reason


def test_scattered_zero_kernels_are_no_blocks() -> None:
    values = weight(4, 1.0)
    values[3, 5] = 0
    decision = decide(values)
    assert (decision.sparse, decision.reason) == (False, "its zero kernels fill no block")


@pytest.mark.parametrize("rows", [None, 1, 16])
def test_a_speed_up_is_expected_exactly_where_blocks_are_skipped(rows: int | None) -> None:
    planner = Planner(AVX512, None, {})
    for block_size in (1, 2, 4, 16):
        for kept in (0.0, 0.1, 0.5, 0.9, 0.95, 1.0):
            values = weight(block_size, kept, kernel=())
            decision = planner.decide(layer(values, rows), Weights(values, values), "w")
            speedup = planner.expected_speedup(layer(values, rows), decision)
            assert speedup == 1 if not decision.sparse else speedup > 1.05
    values = weight(4, 0.25)
    assert planner.expected_speedup(layer(values), planner.decide(layer(values), Weights(values, values), "w")) == 4


def test_small_blocks_pay_less() -> None:
    assert decide(weight(2, 0.5)).block_size == 2
    assert not decide(weight(2, 0.75), 2).sparse
    assert not decide(weight(1, 0.5), 1).sparse
    assert decide(weight(1, 0.25), 1).sparse


def test_another_block_size_may_promise_more() -> None:
    decision = decide(weight(2, 0.7))
    assert (decision.sparse, decision.block_size) == (True, 4)
    assert decision.kept > 0.7


def test_linear_layers_want_full_vectors() -> None:
    assert not decide(weight(4, 0.5, kernel=()), 4, rows=1).sparse
    assert decide(weight(4, 0.25, kernel=()), 4, rows=1).sparse
    assert decide(weight(16, 0.5, kernel=()), rows=1).block_size == 16
    assert decide(weight(4, 0.5, kernel=()), 4, rows=16).sparse  # full of rows


def test_what_the_file_records_is_taken() -> None:
    assert decide(weight(8, 0.5), 4).block_size == 4
    assert decide(weight(8, 0.5), None, {"block_size": 4}).block_size == 4


def test_an_unreadable_record_is_refused() -> None:
    with pytest.raises(OneXNError, match="w: the pattern recorded"):
        decide(weight(8, 0.5), None, {"size": 4})
    with pytest.raises(OneXNError, match="block_size must be an integer"):
        decide(weight(8, 0.5), None, {"block_size": 99})


def test_tails_and_narrow_layers() -> None:
    assert decide(weight(4, 0.5, out_channels=30)).block_size == 4
    assert decide(weight(4, 0.5, out_channels=3), 8).block_size == 3
