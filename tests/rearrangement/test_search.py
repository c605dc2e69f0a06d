"""The two searches: what they maximise, what they may touch, and that the reported numbers are what pruning keeps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from onexn_plugins.layers import groups_of, prunable_layers
from onexn_plugins.masking import attach, fold
from onexn_plugins.pattern import BlockPattern, kernel_l1
from onexn_plugins.rearrangement import find_spaces, rearrange, swap
from onexn_plugins.rearrangement.norms import KernelNorms, Producer
from onexn_plugins.rearrangement.search import arrange, sort
from onexn_plugins.scores import l1
from onexn_plugins.selection import keep_highest
from tests.rearrangement.networks import Concat, Grouped, Residual, build, pictures


def convolution(rows: int, columns: int, groups: int = 1, seed: int = 0) -> nn.Conv2d:
    """Weights whose rows differ in strength and lean on different columns, as trained ones do."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Conv2d(columns * groups, rows, 1, groups=groups, bias=False)
    factors = torch.randn(rows, columns, 1, 1, generator=generator).exp()
    layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * factors
    return layer


def searched(layers: dict[str, nn.Conv2d], producers: list[Producer], classes: Tensor, method: str, *,
             block_size: int = 4, ratio: float = 0.5, seed: int = 0) -> Tensor:
    norms = KernelNorms(layers, block_size, ratio)
    return arrange(norms, producers, classes, method, torch.Generator().manual_seed(seed))


def kept(layers: dict[str, nn.Conv2d], producers: list[Producer], order: Tensor, block_size: int,
         ratio: float) -> float:
    """Written out anew: L1 of the blocks with the highest scores, after the rows of every producer moved."""
    total = 0.0
    for name, layer in layers.items():
        weight = layer.weight.detach().double().clone()
        for producer, rows in producers:
            if producer == name:
                weight[rows] = weight[rows[order]]
        pattern = BlockPattern.of(weight, block_size, groups_of(layer))
        keep = keep_highest(l1(weight, pattern), ratio)
        total += float(pattern.split(kernel_l1(weight)).sum(1)[keep].sum())
    return total


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(4, 40), columns=st.integers(1, 12), groups=st.sampled_from([1, 2, 3]), seed=st.integers(0, 999))
def test_sort_is_descending_norm_within_each_class(rows, columns, groups, seed):
    layer = convolution(rows * groups, columns, groups, seed)
    classes = torch.arange(rows * groups) // rows
    order = searched({"conv": layer}, [("conv", torch.arange(rows * groups))], classes, "sort")
    strength = layer.weight.detach().double().abs().sum((1, 2, 3))
    expected = [row for group in range(groups)
                for row in sorted(range(group * rows, (group + 1) * rows), key=lambda row: -float(strength[row]))]
    assert order.tolist() == expected


def test_sort_adds_the_norms_of_layers_that_share_their_channels():
    layers = {"one": convolution(8, 3, seed=1), "other": convolution(8, 5, seed=2)}
    rows = torch.arange(8)
    order = sort(KernelNorms(layers, 4, 0.5), [("one", rows), ("other", rows)], torch.zeros(8, dtype=torch.int64))
    strength = sum(layer.weight.detach().double().abs().sum((1, 2, 3)) for layer in layers.values())
    assert torch.equal(strength[order], strength.sort(descending=True).values)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(4, 30), columns=st.integers(1, 10), block_size=st.integers(2, 4), seed=st.integers(0, 999),
       ratio=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), classes=st.sampled_from([1, 2, 3]), shared=st.booleans())
def test_swap_is_never_worse_than_the_present_order_or_sort_and_keeps_to_the_classes(
        rows, columns, block_size, seed, ratio, classes, shared):
    layers = {"conv": convolution(rows, columns, seed=seed)}
    producers = [("conv", torch.arange(rows))]
    if shared:
        layers["other"] = convolution(rows + 3, 5, seed=seed + 1)
        producers.append(("other", torch.arange(rows) + 2))
    cells = torch.arange(rows) * classes // rows
    order = searched(layers, producers, cells, "swap", block_size=block_size, ratio=ratio, seed=seed)
    assert sorted(order.tolist()) == list(range(rows))
    assert torch.equal(cells[order], cells)
    by_norm = searched(layers, producers, cells, "sort", block_size=block_size, ratio=ratio)
    for other in (torch.arange(rows), by_norm):
        least = kept(layers, producers, other, block_size, ratio)
        assert kept(layers, producers, order, block_size, ratio) >= least * (1 - 1e-12)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_swap_tells_rows_apart_that_are_equal_in_groups(ratio):
    """Every row has three exact copies, far from it: a block of copies keeps what single kernels would."""
    distinct = convolution(16, 24, seed=3).weight.detach()
    layers = {"conv": convolution(64, 24)}
    layers["conv"].weight.data = distinct.repeat(4, 1, 1, 1)
    producers, classes = [("conv", torch.arange(64))], torch.zeros(64, dtype=torch.int64)
    scattered, by_search = (
        kept(layers, producers, searched(layers, producers, classes, method, ratio=ratio)
             if method else torch.arange(64), 4, ratio) for method in (None, "swap"))
    best = kept(layers, producers, torch.arange(64).reshape(4, 16).T.flatten(), 4, ratio)
    assert best == pytest.approx(kept(layers, producers, torch.arange(64), 1, ratio), rel=1e-9)
    assert by_search > scattered + 0.9 * (best - scattered)


def partitions(rows: list[int], block_size: int) -> Iterator[list[int]]:
    """Every way to cut rows into blocks, as one order each."""
    if not rows:
        yield []
        return
    for others in itertools.combinations(rows[1:], min(block_size, len(rows)) - 1):
        left = [row for row in rows[1:] if row not in others]
        yield from ([rows[0], *others, *rest] for rest in partitions(left, block_size))


@pytest.mark.parametrize(("rows", "block_size", "ways"), [(8, 4, 35), (9, 3, 280), (8, 2, 105)])
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_swap_finds_the_best_of_all_arrangements_of_small_layers_or_nearly(rows, block_size, ways, ratio):
    producers, classes = [("conv", torch.arange(rows))], torch.zeros(rows, dtype=torch.int64)
    orders = torch.tensor(list(partitions(list(range(rows)), block_size)))
    assert len(orders) == ways
    best, found = [], []
    for seed in range(4):
        layers = {"conv": convolution(rows, 10, seed=seed)}
        norms = KernelNorms(layers, block_size, ratio)
        best.append(max(norms.moved(producers, order).kept("conv") for order in orders))
        order = searched(layers, producers, classes, "swap", block_size=block_size, ratio=ratio, seed=seed)
        found.append(norms.moved(producers, order).kept("conv"))
    assert sum(one == pytest.approx(other, rel=1e-9) for one, other in zip(found, best, strict=True)) >= 3
    assert sum(best) * (1 + 1e-9) >= sum(found) >= 0.997 * sum(best)


@pytest.mark.parametrize("rows", [4, 5])
def test_a_layer_of_equal_rows_or_of_one_block_stays_valid(rows):
    """All rows alike: nothing can be gained, and nothing may break. Four rows of N = 4 are one block."""
    layers = {"conv": convolution(rows, 6)}
    layers["conv"].weight.data = torch.ones_like(layers["conv"].weight)
    producers, classes = [("conv", torch.arange(rows))], torch.zeros(rows, dtype=torch.int64)
    for method in ("sort", "swap"):
        order = searched(layers, producers, classes, method)
        assert sorted(order.tolist()) == list(range(rows))


def test_swap_keeps_more_than_sort_and_sort_more_than_nothing():
    layers = {"conv": convolution(64, 48)}
    producers, classes = [("conv", torch.arange(64))], torch.zeros(64, dtype=torch.int64)
    values = [kept(layers, producers, order, 4, 0.5) for order in (
        torch.arange(64), *(searched(layers, producers, classes, method) for method in ("sort", "swap")))]
    assert values[0] < values[1] < 0.99 * values[2]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_swap_brings_rows_together_that_share_their_strong_columns(seed):
    """Each row leans on one of 16 sets of columns. The order by strength is blind to that; the best one is known."""
    kind, noise = torch.arange(64) % 16, torch.rand(64, 64, generator=torch.Generator().manual_seed(seed))
    layers = {"conv": convolution(64, 64)}
    strong = torch.where(kind[:, None] == torch.arange(64)[None] // 4, 1.0, 0.01)
    layers["conv"].weight.data = (strong * (1 + 0.5 * noise))[:, :, None, None]
    producers, ratio = [("conv", torch.arange(64))], 15 / 16
    by_strength, by_search = (
        kept(layers, producers, searched(layers, producers, torch.zeros(64, dtype=torch.int64), method, ratio=ratio),
             4, ratio) for method in ("sort", "swap"))
    best = kept(layers, producers, kind.argsort(stable=True), 4, ratio)
    assert by_search > by_strength + 0.5 * (best - by_strength)


@pytest.mark.parametrize("cached", [2**18, 40, 1])
def test_positive_sums_are_of_what_exceeds_the_threshold(cached, monkeypatch):
    """However small the pieces are in which they are computed."""
    monkeypatch.setattr(swap, "CACHED", cached)
    generator = torch.Generator().manual_seed(0)
    taken, rest = torch.rand(7, 5, generator=generator), torch.rand(7, 5, generator=generator) - 1.0
    expected = (taken[:, None] + rest[None]).clamp_min(0.0).sum(2)
    assert torch.allclose(swap.positive_sums(taken, rest), expected, atol=1e-6)


@pytest.mark.parametrize("block_size", [2, 4, 16])
@pytest.mark.parametrize(("rows", "columns"), [(8, 3), (512, 64), (4096, 8), (3072, 768), (6000, 6000)])
def test_the_search_of_one_space_is_bounded_whatever_its_size(rows, columns, block_size):
    tables = [swap._Table(["conv"], torch.empty(rows, columns), torch.arange(rows) // block_size,
                          torch.empty(-(-rows // block_size), columns), torch.ones(1))]
    sweeps, partners = swap._effort(tables)
    assert sweeps >= 1
    assert min(swap.MIN_PARTNERS, len(tables[0].others)) <= partners <= len(tables[0].others)
    work = sweeps * partners * rows * (columns + swap.ASSIGNMENT)
    most = swap.COMPARISONS * max(1.0, block_size / swap.TALL)
    assert work <= 1.5 * most or (sweeps, partners) == (1, swap.MIN_PARTNERS)


def test_few_partners_still_find_a_better_order(monkeypatch):
    layers = {"conv": convolution(96, 48)}
    monkeypatch.setattr(swap, "COMPARISONS", 0)
    monkeypatch.setattr(swap, "MIN_PARTNERS", 7)
    producers, classes = [("conv", torch.arange(96))], torch.arange(96) % 2
    by_norm, order = (searched(layers, producers, classes, method) for method in ("sort", "swap"))
    assert torch.equal(classes[order], classes)
    assert kept(layers, producers, order, 4, 0.5) > kept(layers, producers, by_norm, 4, 0.5)


def test_swap_depends_on_its_seed_alone():
    def permutations(seed: int) -> dict[str, Tensor]:
        model = build(Concat)
        torch.rand(seed + 1)
        return rearrange(model, pictures(), block_size=2, seed=seed).permutations

    first, second = permutations(3), permutations(3)
    assert list(first) == list(second)
    assert all(torch.equal(order, second[name]) for name, order in first.items())


@pytest.mark.parametrize("method", ["sort", "swap"])
def test_rows_stay_in_their_group(method):
    model = build(Grouped)
    result = rearrange(model, pictures(), method=method, block_size=2)
    groups = torch.arange(12) // 4
    for name in ("stem", "grouped"):
        assert torch.equal(groups[result.permutations[name]], groups)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize(("kind", "method"), [
    (Residual, "sort"), (Residual, "swap"), (Grouped, "swap"), (Concat, "swap")])
def test_the_reported_fractions_are_what_masks_keep(kind, method, ratio):
    """Recomputed by really masking every layer, before and after."""

    def masked(model: nn.Module) -> dict[str, tuple[float, float]]:
        values = {}
        for name, layer in prunable_layers(model).items():
            total = float(layer.weight.detach().double().abs().sum())
            pattern = BlockPattern.of(layer.weight, 3, groups_of(layer))
            attach(layer, keep_highest(l1(layer.weight, pattern), ratio), 3)
            values[name] = float(layer.weight.detach().double().abs().sum()), total
        fold(model)
        return values

    model = build(kind)
    before = masked(build(kind))
    result = rearrange(model, pictures(), method=method, block_size=3, pruning_ratio=ratio)
    after = masked(model)
    for layer in result.layers:
        assert layer.retained_before == pytest.approx(before[layer.name][0] / before[layer.name][1], rel=1e-9)
        assert layer.retained_after == pytest.approx(after[layer.name][0] / after[layer.name][1], rel=1e-9)
    for reported, values in ((result.retained_before, before), (result.retained_after, after)):
        assert reported == pytest.approx(sum(map(min, values.values())) / sum(map(max, values.values())), rel=1e-9)
    if method == "swap":
        assert result.retained_after >= result.retained_before


def test_a_second_swap_has_nothing_to_lose():
    model = build(Residual)
    first = rearrange(model, pictures(), block_size=2)
    second = rearrange(model, pictures(), block_size=2)
    assert second.retained_before == pytest.approx(first.retained_after, rel=1e-9)
    assert second.retained_after >= second.retained_before


def test_ignored_layers_do_not_count_but_follow():
    model, spaces = build(Residual), find_spaces(build(Residual), pictures()).spaces
    assert any({"second.weight", "third.weight"} <= {member.name for member in space.members} for space in spaces)
    before = model.third.weight.detach().clone()
    result = rearrange(model, pictures(), method="sort", block_size=2, ignored_layers=["third", model.head])
    assert {layer.name for layer in result.layers} == {"stem", "first", "second"}
    order = result.permutations["second"]
    assert torch.equal(model.third.weight, before[order][:, order])
