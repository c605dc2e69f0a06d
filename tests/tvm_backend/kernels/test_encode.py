"""BSR encoding: exact round trip, smallest index type, size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onexn_plugins.errors import OneXNError
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.tvm_backend.kernels.encode import decode, encode, in_slices


def sparse_weight(shape, block_size, density, groups=1, seed=0):
    rng = np.random.default_rng(seed)
    pattern = BlockPattern(shape[0], shape[1], min(block_size, shape[0] // groups), groups)
    keep = torch.from_numpy(rng.random(pattern.shape) < density)
    weight = rng.standard_normal(shape).astype(np.float32)
    return weight * pattern.expand(keep).numpy().reshape(shape[0], shape[1], *(1 for _ in shape[2:]))


@settings(max_examples=60, deadline=None)
@given(
    groups=st.integers(1, 3), group_channels=st.integers(1, 37), in_channels=st.integers(1, 19),
    kernel=st.sampled_from([(), (1, 1), (3, 3), (1, 5)]), block_size=st.integers(1, 32),
    density=st.sampled_from([0.0, 0.3, 0.7, 1.0]), seed=st.integers(0, 99),
)
def test_round_trip_is_exact(groups, group_channels, in_channels, kernel, block_size, density, seed):
    weight = sparse_weight((groups * group_channels, in_channels, *kernel), block_size, density, groups, seed)
    encoded = encode(weight, block_size, groups)
    assert np.array_equal(decode(encoded), weight)
    assert encoded.row_ptr[-1] == encoded.num_blocks == encoded.indices.size
    assert encoded.values.size == encoded.num_blocks * encoded.taps * encoded.block_size
    dense = encode(weight, block_size, groups, keep_all=True)
    assert dense.is_dense
    assert dense.density == 1.0
    assert np.array_equal(decode(dense), weight)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.integers(1, 3), group_channels=st.integers(1, 13), in_channels=st.integers(1, 19),
    kernel=st.sampled_from([(), (1, 1), (1, 3)]), slices=st.integers(1, 20),
    density=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 99),
)
def test_slices_hold_the_same_blocks(groups, group_channels, in_channels, kernel, slices, density, seed):
    weight = sparse_weight((groups * group_channels, in_channels, *kernel), 4, density, groups, seed)
    whole = encode(weight, 4, groups)
    cut = in_slices(whole, slices)
    assert np.array_equal(decode(cut), weight)
    assert (cut.slices - 1) * cut.slice_channels < in_channels <= cut.slices * cut.slice_channels
    assert np.array_equal(cut.row_counts.reshape(cut.slices, -1).sum(0), whole.row_counts)
    assert (cut.indices < cut.slice_channels).all()


def test_indices_within_slices_are_small():
    weight = sparse_weight((8, 2048, 1, 1), 4, 0.5)
    assert encode(weight, 4).indices.dtype == np.uint16
    assert in_slices(encode(weight, 4), 8).indices.dtype == np.uint8


@pytest.mark.parametrize(("in_channels", "dtype"), [(256, np.uint8), (257, np.uint16), (65537, np.int32)])
def test_indices_take_the_smallest_type(in_channels, dtype):
    weight = np.zeros((4, in_channels), np.float32)
    weight[:, -1] = 1.0
    encoded = encode(weight, 4)
    assert encoded.indices.dtype == dtype
    assert np.array_equal(decode(encoded), weight)


def test_half_of_a_pointwise_weight_takes_at_most_57_percent():
    weight = sparse_weight((512, 512, 1, 1), 4, 0.5)
    encoded = encode(weight, 4)
    assert encoded.nbytes <= (encoded.density + 0.07) * weight.nbytes


def test_a_dense_weight_stores_no_indices():
    weight = np.random.default_rng(0).standard_normal((16, 8, 3, 3)).astype(np.float32)
    assert encode(weight, 4).nbytes == weight.nbytes


def test_equal_rows_need_no_pointers():
    weight = np.zeros((8, 4), np.float32)
    weight[:4, 1] = weight[4:, 3] = 1.0
    encoded = encode(weight, 4)
    assert encoded.blocks_per_row == 1
    assert encoded.nbytes == encoded.values.nbytes + encoded.indices.nbytes


@pytest.mark.parametrize("block_size", [0, -1, 33, True])
def test_a_bad_block_size_is_refused(block_size):
    with pytest.raises(OneXNError, match="block_size"):
        encode(np.ones((64, 4), np.float32), block_size)
