"""Exact elimination against brute force, and least squares against a dense solver."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from onexn_plugins.pattern import BlockPattern, weight_mask
from onexn_plugins.repair import elimination
from onexn_plugins.repair.elimination import block_rows, damped, eliminate, kernel_saliency
from onexn_plugins.repair.least_squares import fit, squared_error
from onexn_plugins.repair.moments import Moments
from onexn_plugins.selection import keep_highest

CASES = {"1x1": ((8, 12, 1, 1), 4, 1), "3x3": ((8, 6, 3, 3), 4, 1), "tail": ((10, 9, 1, 1), 4, 1),
         "grouped": ((8, 5, 3, 3), 2, 2), "linear": ((6, 10), 4, 1), "conv1d": ((4, 6, 5), 2, 1)}


def layer(shape: tuple[int, ...], groups: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """A weight and correlated samples [groups, n, d] of what it reads."""
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=dtype)
    size = weight[0].numel()
    return weight, torch.randn(groups, 6 * size, size, dtype=dtype) @ torch.randn(groups, size, size, dtype=dtype)


def brute_force(rows: Tensor, hessian: Tensor, taps: int, count: int) -> tuple[list[int], list[float]]:
    """Blocks of one block row [N, d] in the order of a greedy removal that solves every least squares anew."""
    gone: list[int] = []
    errors = [0.0]
    for _ in range(count):
        tried = {}
        for block in range(rows.shape[1] // taps):
            left = [column for column in range(rows.shape[1]) if column // taps not in [*gone, block]]
            if block not in gone:
                solved = torch.zeros_like(rows)
                solved[:, left] = torch.linalg.solve(hessian[left][:, left], hessian[left] @ rows.T).T
                change = solved - rows
                tried[block] = float(((change @ hessian) * change).sum())
        best = min(tried, key=tried.__getitem__)
        gone.append(best)
        errors.append(tried[best])
    return gone, [after - before for before, after in pairwise(errors)]


@pytest.mark.parametrize("case", CASES)
def test_elimination_is_brute_force(case):
    shape, block_size, groups = CASES[case]
    weight, samples = layer(shape, groups)
    pattern = BlockPattern.of(weight, block_size, groups)
    covariance = samples.mT @ samples / samples.shape[1]
    found = eliminate(weight, pattern, covariance, max_ratio=0.8)
    rows, count = block_rows(weight, pattern), int(pattern.in_channels * 0.8)
    for row in range(pattern.block_rows):
        hessian = damped(covariance)[row // pattern.rows_per_group]
        order, losses = brute_force(rows[row].flatten(1), hessian, rows.shape[3], count)
        assert found.scores[row].argsort()[:count].tolist() == order
        torch.testing.assert_close(found.losses[row][order], torch.tensor(losses, dtype=torch.float64), rtol=1e-5,
                                   atol=1e-8)


def test_the_curve_is_the_error_that_least_squares_leaves():
    weight, samples = layer((8, 12, 1, 1), 1)
    pattern = BlockPattern.of(weight, 4)
    moments = Moments(1, 12, 8)
    moments.add(samples, samples @ weight.flatten(1).T)
    statistics = moments.statistics(centred=False)
    found = eliminate(weight, pattern, statistics.inputs, damping=1e-9)
    for pruned in (1, 7, 12):
        keep = keep_highest(found.scores, pruned / pattern.num_blocks)
        left = squared_error(fit(weight, keep, pattern, statistics, damping=1e-9), statistics).sum()
        torch.testing.assert_close(found.curve()[pruned], left, rtol=1e-4, atol=1e-6)


def test_many_blocks_at_once_lose_about_as_little():
    weight, samples = layer((8, 64, 1, 1), 1, torch.float32)
    pattern = BlockPattern.of(weight, 4)
    covariance = (samples.mT @ samples / samples.shape[1]).double()
    single, several = (eliminate(weight, pattern, covariance, at_once=count).curve()[64] for count in (1, 4))
    assert several < 1.1 * single


def test_memory_is_bounded_by_working_on_fewer_rows_at_a_time(monkeypatch):
    weight, samples = layer((32, 12, 1, 1), 1)
    pattern = BlockPattern.of(weight, 4)
    whole = eliminate(weight, pattern, samples.mT @ samples)
    chunks = []
    inner = elimination._eliminate_rows
    monkeypatch.setattr(elimination, "MEMORY", 12 * 11 * 8 * 2)
    monkeypatch.setattr(elimination, "_eliminate_rows", lambda rows, *rest: (
        chunks.append(len(rows)), inner(rows, *rest))[1])
    parts = eliminate(weight, pattern, samples.mT @ samples)
    assert max(chunks) == 2
    assert sum(chunks) == pattern.block_rows
    torch.testing.assert_close(parts.losses, whole.losses)


def test_a_dead_input_costs_nothing():
    weight, samples = layer((8, 12, 1, 1), 1)
    samples[:, :, 3] = 0
    found = eliminate(weight, BlockPattern.of(weight, 4), samples.mT @ samples / samples.shape[1])
    assert bool((found.scores.argmin(1) == 3).all())
    nothing = eliminate(weight, BlockPattern.of(weight, 4), torch.zeros(1, 12, 12, dtype=torch.float64))
    assert bool(torch.isfinite(nothing.scores).all())


@pytest.mark.parametrize("case", CASES)
def test_saliency_is_the_loss_of_each_kernel_alone(case):
    shape, _, groups = CASES[case]
    weight, samples = layer(shape, groups)
    covariance = samples.mT @ samples / samples.shape[1]
    single = eliminate(weight, BlockPattern.of(weight, 1, groups), covariance, max_ratio=0.0).losses
    torch.testing.assert_close(kernel_saliency(weight, covariance, groups).square(), single)


@settings(deadline=None, max_examples=25)
@given(case=st.sampled_from(sorted(CASES)), ratio=st.floats(0, 1), seed=st.integers(0, 99), damping=st.sampled_from(
    [1e-6, 0.01, 1.0]))
def test_least_squares_never_does_worse_than_the_masked_weight(case, ratio, seed, damping):
    shape, block_size, groups = CASES[case]
    weight, samples = layer(shape, groups)
    pattern = BlockPattern.of(weight, block_size, groups)
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(pattern.shape, generator=generator) >= ratio
    moments = Moments(groups, samples.shape[2], pattern.group_channels)
    targets = samples @ weight.flatten(1).unflatten(0, (groups, -1)).mT
    moments.add(samples, targets + torch.randn(targets.shape, generator=generator, dtype=torch.float64))
    statistics = moments.statistics()
    fitted = fit(weight, keep, pattern, statistics, damping=damping)
    masked = weight * weight_mask(keep, pattern, weight)
    assert bool((fitted.masked_select(~weight_mask(keep, pattern, weight)) == 0).all())
    assert (squared_error(fitted, statistics) <= squared_error(masked, statistics)).all()
    assert squared_error(fitted, statistics).sum() <= squared_error(masked, statistics).sum() * (1 + 1e-9)
