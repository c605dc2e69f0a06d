import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins import scores, selection
from onexn_plugins.errors import OneXNError
from onexn_plugins.pattern import BlockPattern
from tests.strategies import patterns, ratios, weights


@given(weights())
def test_l1_is_the_sum_over_the_block_scaled_to_n_kernels(weight_and_pattern):
    weight, pattern = weight_and_pattern
    computed = scores.l1(weight, pattern)
    group, row = pattern.groups - 1, pattern.rows_per_group - 1  # the tail of the last group
    first = group * pattern.group_channels + row * pattern.block_size
    tail = weight[first:]
    expected = tail.double().abs().reshape(len(tail), pattern.in_channels, -1).sum((0, 2))
    torch.testing.assert_close(computed[-1], expected * pattern.block_size / len(tail))


def test_tail_blocks_compete_per_kernel():
    weight = torch.ones(6, 2, 1, 1)  # N=4: a full row and a tail of two
    score = scores.l1(weight, BlockPattern.of(weight, 4))
    assert torch.equal(score, torch.full((2, 2), 4.0, dtype=torch.float64))


@given(weights())
def test_angular_is_the_norms_share_less_that_of_the_cosines(weight_and_pattern):
    weight, pattern = weight_and_pattern
    computed = scores.angular(weight, pattern)
    row = pattern.rows_per_group - 1  # of the first group, its tail
    channels = weight[row * pattern.block_size : pattern.group_channels].double()
    blocks = [channels[:, place].flatten() for place in range(pattern.in_channels)]
    norms = [float(block.abs().sum()) for block in blocks]
    cosines = [sum(abs(float(one @ other / one.norm() / other.norm())) for other in blocks) for one in blocks]
    for place in range(pattern.in_channels):
        expected = norms[place] / sum(norms) - cosines[place] / sum(cosines)
        assert float(computed[row, place]) == pytest.approx(1 + pattern.in_channels * expected)
    torch.testing.assert_close(computed.mean(1), torch.ones(pattern.block_rows, dtype=torch.float64))


def test_of_blocks_that_point_the_same_way_one_goes_and_zeros_are_ranked_too():
    weight = torch.tensor([[1.0, 1.0, -1.0, 0.0], [0.1, 0.1, 1.0, 0.0]])[:, :, None, None]
    pattern = BlockPattern.of(weight, 2)
    score = scores.angular(weight, pattern)
    assert score[0, 2] > score[0, 0] == score[0, 1] > score[0, 3]
    assert torch.equal(scores.angular(torch.zeros_like(weight), pattern), torch.ones(1, 4, dtype=torch.float64))


@given(weights())
def test_scores_do_not_depend_on_the_dtype_they_are_stored_in(weight_and_pattern):
    weight, pattern = weight_and_pattern
    assert torch.equal(scores.l1(weight, pattern), scores.l1(weight.double(), pattern))


@given(patterns(), ratios, st.integers(0, 99))
def test_random_draws_without_replacement_and_by_seed(pattern, ratio, seed):
    score = scores.random(pattern, seed=seed, layer="a")
    assert torch.equal(score, scores.random(pattern, seed=seed, layer="a"))
    keep = selection.keep_highest(score, ratio)
    assert int((~keep).sum()) == selection.num_pruned(pattern.num_blocks, ratio)
    if pattern.num_blocks > 8:
        assert not torch.equal(score, scores.random(pattern, seed=seed, layer="b"))
        assert not torch.equal(score, scores.random(pattern, seed=seed + 1, layer="a"))


@given(st.integers(1, 10_000), ratios)
def test_the_pruned_count_is_the_nearest(num_blocks, ratio):
    count = selection.num_pruned(num_blocks, ratio)
    assert 0 <= count <= num_blocks
    assert abs(count - num_blocks * ratio) <= 0.5 + 1e-9


def test_a_ratio_that_floats_cannot_hold_is_not_floored():
    assert selection.num_pruned(100, 0.29) == 29


@given(weights(), ratios)
def test_layer_scope_prunes_the_lowest(weight_and_pattern, ratio):
    score = scores.l1(*weight_and_pattern)
    keep = selection.keep_highest(score, ratio)
    assert keep.shape == score.shape
    if 0 < int(keep.sum()) < keep.numel():
        assert score[keep].min() >= score[~keep].max()


@given(st.lists(st.lists(st.sampled_from([-math.inf, 0.0, 1.0, 2.0]), min_size=6, max_size=6), min_size=1, max_size=4),
       ratios)
def test_ties_fall_to_the_lower_index(rows, ratio):
    """As by sorting, row by row and for the layer as one row."""
    score = torch.tensor(rows, dtype=torch.float64)
    for flat, keep in ((score, selection.keep_highest_per_row(score, ratio)),
                       (score.reshape(1, -1), selection.keep_highest(score, ratio).reshape(1, -1))):
        count = selection.num_pruned(flat.shape[1], ratio)
        for row, kept in zip(flat.tolist(), keep.tolist(), strict=True):
            pruned = sorted(range(len(row)), key=lambda place, row=row: (row[place], place))[:count]
            assert kept == [place not in pruned for place in range(len(row))]


@given(weights(), ratios)
def test_row_scope_keeps_equally_many_in_every_row(weight_and_pattern, ratio):
    score = scores.l1(*weight_and_pattern)
    keep = selection.keep_highest_per_row(score, ratio)
    assert set(keep.sum(1).tolist()) == {score.shape[1] - selection.num_pruned(score.shape[1], ratio)}


@given(st.integers(1, 1000), st.integers(0, 100), st.integers(0, 100))
def test_limits_are_not_rounded_over(num_blocks, one, other):
    low, high = sorted((one, other))
    least, most = selection.limits(num_blocks, low / 100, high / 100)
    assert 100 * most <= high * num_blocks < 100 * (most + 1)
    assert least == min(most, -(-low * num_blocks // 100))


@given(st.lists(weights(), min_size=1, max_size=4), ratios, ratios, ratios)
def test_global_scope_meets_the_budget_within_every_layers_bounds(layers, ratio, one, other):
    low, high = sorted((one, other))
    by_name = {str(index): scores.l1(*layer) for index, layer in enumerate(layers)}
    keep = selection.keep_highest_globally(by_name, ratio, min_ratio=low, max_ratio=high)
    bounds = {name: selection.limits(score.numel(), low, high) for name, score in by_name.items()}
    pruned = {name: int((~layer).sum()) for name, layer in keep.items()}
    assert all(bounds[name][0] <= count <= bounds[name][1] for name, count in pruned.items())
    total = selection.num_pruned(sum(score.numel() for score in by_name.values()), ratio)
    lowest, highest = (sum(bound[side] for bound in bounds.values()) for side in (0, 1))
    assert sum(pruned.values()) == min(max(total, lowest), highest)


def test_global_scope_prunes_the_layer_that_matters_less():
    even = torch.ones(4, 4, dtype=torch.float64)
    spread = torch.arange(16, dtype=torch.float64).reshape(4, 4)
    keep = selection.keep_highest_globally({"even": even, "spread": spread}, 0.25)
    assert int((~keep["spread"]).sum()) == 8
    assert bool(keep["even"].all())


@given(weights(), ratios)
def test_gradual_pruning_never_revives_a_block(weight_and_pattern, ratio):
    score = scores.l1(*weight_and_pattern)
    before = selection.keep_highest(score.flip(0), ratio / 2)
    after = selection.keep_highest(selection.only_shrinking(score, before), ratio)
    assert not bool((after & ~before).any())


@given(weights(), ratios, ratios)
def test_regrowth_lets_the_best_pruned_blocks_compete_again(weight_and_pattern, ratio, regrowth):
    weight, pattern = weight_and_pattern
    before = selection.keep_highest(scores.l1(weight, pattern), ratio)
    random = scores.random(pattern, seed=3)
    pruned, competing = ~before, torch.isfinite(selection.only_shrinking(random, before, regrowth))
    back = competing & pruned
    assert bool(competing[before].all())
    assert int(back.sum()) == selection.num_pruned(int(pruned.sum()), regrowth)
    if bool(back.any()) and bool((pruned & ~back).any()):
        assert random[back].min() > random[pruned & ~back].max()


def test_global_scope_compares_scores_as_they_are_where_it_is_told_to():
    layers = {"small": torch.tensor([[1.0, 2.0]]), "large": torch.tensor([[10.0, 30.0]])}
    keep = selection.keep_highest_globally(layers, 0.5, normalize=False)
    assert not keep["small"].any()
    assert keep["large"].all()


def test_equal_scores_fall_to_the_lower_index():
    keep = selection.keep_highest(torch.ones(2, 3), 0.5)
    assert keep.flatten().tolist() == [False, False, False, True, True, True]


@pytest.mark.parametrize("ratio", [-0.1, 1.5, math.nan, "half", None, True])
def test_a_wrong_ratio_is_refused(ratio):
    with pytest.raises(OneXNError, match="pruning_ratio must be a number from 0 to 1"):
        selection.check_ratio(ratio)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_cannot_be_ranked_is_refused_by_name(value):
    weight = torch.ones(4, 4)
    weight[1, 1] = value
    with pytest.raises(OneXNError, match="head: its weight holds NaN"):
        scores.check_finite(weight, "head")
