import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import as_stored, groups_of, out_channels, out_first, pattern_of
from onexn_plugins.masking import attach
from onexn_plugins.pattern import (
    BlockPattern,
    check_block_size,
    detect_block_size,
    is_block_sparse,
    kernel_l1,
    nonzero_blocks,
    nonzero_kernels,
    turned,
    weight_mask,
)
from tests.strategies import block_sizes, keeps, layers, patterns, weights


def block_of_channel(pattern: BlockPattern) -> list[int]:
    """The definition, written out: channels count up inside their group, N to a block."""
    rows = []
    for channel in range(pattern.out_channels):
        group, inside = divmod(channel, pattern.group_channels)
        rows.append(group * pattern.rows_per_group + inside // pattern.block_size)
    return rows


@given(patterns())
def test_every_channel_belongs_to_one_block_of_its_own_group(pattern):
    rows = block_of_channel(pattern)
    assert rows == sorted(rows)
    assert max(rows) == pattern.block_rows - 1
    heights = pattern.row_heights().tolist()
    assert heights == [rows.count(row) for row in range(pattern.block_rows)]
    groups_of_row = {row: channel // pattern.group_channels for channel, row in enumerate(rows)}
    assert all(groups_of_row[row] == channel // pattern.group_channels for channel, row in enumerate(rows))


@given(st.data(), patterns())
def test_expand_gives_every_channel_its_blocks_value(data, pattern):
    keep = data.draw(keeps(pattern))
    expanded = pattern.expand(keep)
    for channel, row in enumerate(block_of_channel(pattern)):
        assert torch.equal(expanded[channel], keep[row])


@given(weights())
def test_split_gathers_the_channels_of_a_block(weight_and_pattern):
    weight, pattern = weight_and_pattern
    norms = kernel_l1(weight)
    blocks = pattern.split(norms)
    assert blocks.shape == (pattern.block_rows, pattern.block_size, pattern.in_channels)
    expected = torch.zeros(pattern.shape, dtype=torch.float64)
    expected.index_add_(0, torch.tensor(block_of_channel(pattern)), norms)
    torch.testing.assert_close(blocks.sum(1), expected)


@given(weights())
def test_blocks_hold_the_weights_of_a_block_in_one_row(weight_and_pattern):
    weight, pattern = weight_and_pattern
    blocks = pattern.blocks(weight)
    assert blocks.shape == (*pattern.shape, pattern.block_size * weight[0, 0].numel())
    rows = block_of_channel(pattern)
    for row in range(pattern.block_rows):
        channels = [channel for channel in range(pattern.out_channels) if rows[channel] == row]
        expected = weight[channels].reshape(len(channels), pattern.in_channels, -1).transpose(0, 1).flatten(1)
        assert torch.equal(blocks[row, :, : expected.shape[1]], expected)
        assert not blocks[row, :, expected.shape[1] :].any()


@given(st.data(), weights())
def test_a_masked_weight_shows_exactly_the_mask(data, weight_and_pattern):
    weight, pattern = weight_and_pattern
    keep = data.draw(keeps(pattern))
    masked = weight * weight_mask(keep, pattern, weight)
    assert torch.equal(nonzero_blocks(masked, pattern), keep)
    assert torch.equal(nonzero_kernels(masked), pattern.expand(keep))
    assert is_block_sparse(masked, pattern) == (not bool(keep.all()))


@given(st.data(), weights())
def test_detection_finds_the_largest_aligned_block_size(data, weight_and_pattern):
    weight, pattern = weight_and_pattern
    keep = data.draw(keeps(pattern))
    assume(not bool(keep.all()))
    masked = weight * weight_mask(keep, pattern, weight)
    detected = detect_block_size(masked, pattern.groups)
    assert detected is not None
    assert is_block_sparse(masked, BlockPattern.of(masked, detected, pattern.groups))
    if pattern.block_size in (1, 2, 4, 8, 16, 32) and pattern.block_size < 2 * pattern.out_channels:
        assert detected >= pattern.block_size


def one_channel(layer: nn.Module, channel: int) -> Tensor:
    """An input of which one channel alone is not zero."""
    shape = (layer.in_features,) if isinstance(layer, nn.Linear) else (layer.in_channels, *[4] * len(layer.kernel_size))
    images = torch.zeros(1, *shape)
    images[0, channel] = 1 + torch.rand(shape[1:])
    return images


@given(st.data(), layers(), block_sizes)
@settings(max_examples=30)
def test_a_masked_layer_of_any_kind_hears_through_its_kept_blocks_alone(data, layer, block_size):
    """By the definition: output channel o reads input channel i of its group where the block of both is kept."""
    pattern = pattern_of(layer, block_size)
    keep = data.draw(keeps(pattern))
    attach(layer, keep, block_size)
    rows = block_of_channel(pattern)
    with torch.no_grad():
        for channel in range(pattern.in_channels * pattern.groups):
            group, inside = divmod(channel, pattern.in_channels)
            answer = layer(one_channel(layer, channel))[0].flatten(1) if layer.weight.dim() > 2 else layer(
                one_channel(layer, channel))[0][:, None]
            for output in range(pattern.out_channels):
                heard = output // pattern.group_channels == group and bool(keep[rows[output], inside])
                assert bool((answer[output] != 0).any()) == heard


@given(layers())
@settings(max_examples=30)
def test_kernels_of_any_kind_of_layer_lie_where_the_definition_says(layer):
    weight, groups = layer.weight.detach(), groups_of(layer)
    turned_weight = out_first(layer, weight)
    assert turned_weight.shape[0] == out_channels(layer)
    assert torch.equal(as_stored(layer, turned_weight), weight)
    if "Transpose" in type(layer).__name__:
        reads, gives = len(weight) // groups, weight.shape[1]
        for group in range(groups):
            for output in range(gives):
                for inside in range(reads):
                    assert torch.equal(turned_weight[group * gives + output, inside],
                                       weight[group * reads + inside, output])


def test_turning_twice_changes_nothing():
    weight = torch.arange(120.0).reshape(6, 4, 5)
    assert turned(weight, 3).shape == (12, 2, 5)
    assert torch.equal(turned(turned(weight, 3), 3), weight)


def test_detection_of_dense_and_unstructured_weights():
    weight = torch.ones(16, 8, 3, 3)
    assert detect_block_size(weight) is None
    generator = torch.Generator().manual_seed(0)
    weight[torch.rand(16, 8, generator=generator) < 0.5] = 0
    assert detect_block_size(weight) == 1


def test_misaligned_blocks_are_not_block_sparse():
    weight = torch.ones(8, 4, 1, 1)
    weight[2:6, 0] = 0  # four channels in a row, but across two blocks
    assert not is_block_sparse(weight, BlockPattern.of(weight, 4))
    assert detect_block_size(weight) == 2


@pytest.mark.parametrize("block_size", [0, -4, 33, 4.0, "4", True, None])
def test_a_wrong_block_size_is_refused(block_size):
    with pytest.raises(OneXNError, match="block_size must be an integer from 1 to 32"):
        check_block_size(block_size)


def test_a_layer_of_fewer_channels_than_a_block_is_one_tail():
    pattern = BlockPattern.of(torch.ones(6, 3, 1, 1), 8)
    assert pattern.shape == (1, 3)
    assert pattern.row_heights().tolist() == [6]
    keep = torch.tensor([[True, False, True]])
    assert torch.equal(pattern.expand(keep), keep.expand(6, 3))


def test_a_weight_without_input_channels_is_refused():
    with pytest.raises(OneXNError, match="no input channels"):
        BlockPattern.of(torch.ones(6), 2)
