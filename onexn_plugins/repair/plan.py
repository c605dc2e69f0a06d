"""Ratios of the layers: from one ratio for the network, or for a budget of multiply-adds, bytes or milliseconds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.inputs import check_inputs
from onexn_plugins.layers import PrunableLayer, pattern_of
from onexn_plugins.measurement import measure
from onexn_plugins.rearrangement.proof import clean_copy
from onexn_plugins.repair.budget import GRID, at, choose
from onexn_plugins.repair.images import read_images
from onexn_plugins.repair.importance import channel_importance
from onexn_plugins.repair.latency import LatencyTable, check_target
from onexn_plugins.repair.modelled import modelled_prices
from onexn_plugins.repair.options import Context, check_amount, layers_to_prune
from onexn_plugins.repair.prices import bytes_prices, kept_share, macs_prices
from onexn_plugins.repair.surroundings import surroundings
from onexn_plugins.repair.survey import Progress, Survey, survey

BISECTIONS = 24


@dataclass(frozen=True)
class Budget:
    """What the pruned network may cost; one of macs, bytes, latency_ms and speedup is given.

    Attributes:
        macs: multiply-adds of one forward pass on the example inputs, all layers together.
        bytes: of all parameters, with two bytes for the index of each kept block.
        latency_ms: milliseconds of the compiled network, measured on this machine.
        target: that it is compiled for.
        speedup: how many times less than the dense network it costs by the cost model of the target, which may be any;
            see `modelled`.
        whole: what the dense network costs by that model; found when it is needed, unless channels go before.
        table: file of the measured latencies, which are measured where it does not exist, and kept.
    """

    macs: float | None = None
    bytes: float | None = None
    latency_ms: float | None = None
    target: str = "host"
    table: Path | None = None
    speedup: float | None = None
    whole: float | None = None

    def __post_init__(self) -> None:
        kinds = ("macs", "bytes", "latency_ms", "speedup")
        given = {name: value for name in kinds if (value := getattr(self, name)) is not None}
        if len(given) != 1:
            raise OneXNError("budget", f"one of latency_ms, macs, bytes and speedup is needed, got {len(given)}",
                             "Say what the pruned network may cost, for example latency_ms=5")
        name, value = next(iter(given.items()))
        check_amount(value, name, 1.0 if name == "speedup" else 0.0)
        if self.latency_ms is not None:
            check_target(self.target)

    def ratios(self, found: Survey, model: nn.Module, layers: Mapping[str, PrunableLayer], example_inputs: Any,
               block_size: int) -> dict[str, float]:
        """The ratio of each layer that meets it with the least harm.

        Raises:
            OneXNError: it cannot be met; the message says what can.
        """
        prices, fixed, amount, unit = self.priced(found, model, layers, example_inputs, block_size)
        return choose(losses(found), prices, amount, unit, fixed=fixed)

    def priced(self, found: Survey, model: nn.Module, layers: Mapping[str, PrunableLayer], example_inputs: Any,
               block_size: int) -> tuple[dict[str, np.ndarray], float, float, str]:
        """(price of each layer at every ratio of GRID, price of all else, what may be spent, unit)"""
        known = {name: layers[name] for name in found.eliminations}
        if self.latency_ms is not None:
            table = LatencyTable.measured(model, known, example_inputs, block_size, self.target, self.table)
            return table.prices, table.fixed, self.latency_ms, " ms"
        if self.speedup is not None:
            prices, fixed = modelled_prices(model, known, example_inputs, block_size, self.target)
            whole = self.whole or fixed + sum(float(price[0]) for price in prices.values())
            return prices, fixed, whole / self.speedup, " multiply-adds of dense kernels"
        kept = kept_shares(found, known, block_size)
        if self.macs is not None:
            prices, fixed = macs_prices(measure(model, block_size, example_inputs), kept)
            return prices, fixed, self.macs, " multiply-adds"
        prices, fixed = bytes_prices(model, kept, block_size)
        return prices, fixed, float(self.bytes or 0), " bytes"

    def against(self, model: nn.Module, layers: Mapping[str, PrunableLayer], example_inputs: Any,
                block_size: int) -> Budget:
        """The same for a network that loses channels: a speed-up is still one over `model`, as it is now."""
        if self.speedup is None:
            return self
        prices, fixed = modelled_prices(model, layers, example_inputs, block_size, self.target)
        return replace(self, whole=fixed + sum(float(price[0]) for price in prices.values()))


def plan_ratios(model: nn.Module, images: Any, example_inputs: Any, *, target: str = "host",
                latency_ms: float | None = None, macs: float | None = None, bytes: float | None = None,
                speedup: float | None = None,
                block_size: int = 4, ignored_layers: Iterable[str | nn.Module] = (), full: bool | None = None,
                preprocess: Callable[[Any], Tensor] | None = None, table: str | os.PathLike[str] | None = None,
                progress: Progress | None = None) -> dict[str, float]:
    """The ratio of each layer with which the pruned network meets a budget and loses least.

    Both pruners and `repair` take the result.

    Args:
        model: any eager model; it is not changed.
        images: as `repair` takes them.
        example_inputs: what forward takes, of the shape that the budget is for.
        target: that latencies are measured on: one this machine can run. With speedup any.
        latency_ms: budget in milliseconds of the compiled network. Only one of the budgets is given.
        macs: budget in multiply-adds of one forward pass.
        bytes: budget in bytes of all parameters, see `Budget`.
        speedup: how many times less than the dense network it should cost by the target's cost model.
        block_size: N.
        ignored_layers: names or modules that stay dense.
        full: Linear layers too, as in `repair`.
        preprocess: from a PIL image to a tensor, for a folder.
        progress: called as progress(done, total, what).
        table: file of measured latencies, written once and read from then on.

    Returns:
        Layer -> share of its blocks that goes, from 0 to 0.95.

    Raises:
        OneXNError: bad arguments or images, or a budget that cannot be met: the message says which one can.
    """
    budget = Budget(macs, bytes, latency_ms, target, None if table is None else Path(table), speedup)
    names = list(layers_to_prune(model, ignored_layers, full, block_size))
    check_inputs(example_inputs)
    found = read_images(images, model, preprocess)
    copy, context = clean_copy(model).eval(), Context(model)
    layers: dict[str, Any] = {name: copy.get_submodule(name) for name in names}
    around = surroundings(copy, example_inputs, {name: layer.weight for name, layer in layers.items()})
    patterns = {name: pattern_of(layer, block_size, name) for name, layer in layers.items()}
    known = survey(copy, found, layers, around, patterns, context=context, progress=progress,
                   importance=channel_importance(copy, found, layers))
    return budget.ratios(known, copy, layers, example_inputs, block_size)


def kept_shares(found: Survey, layers: Mapping[str, PrunableLayer], block_size: int) -> dict[str, np.ndarray]:
    """Share of each layer's weights that stays at every ratio of GRID."""
    patterns = {name: pattern_of(layers[name], block_size, name) for name in found.eliminations}
    return {name: kept_share(found.eliminations[name].scores, pattern) for name, pattern in patterns.items()}


def losses(found: Survey) -> dict[str, np.ndarray]:
    """Harm of each layer at every ratio of GRID: by its error there, of which some were measured."""
    return {name: found.harm[name](each.error(GRID)) for name, each in found.eliminations.items()}


def share_ratios(found: Survey, layers: Mapping[str, PrunableLayer], macs: Mapping[str, int], ratio: float,
                 block_size: int) -> dict[str, float]:
    """Ratios with which this share of all blocks goes and no less of their multiply-adds, where it harms least."""
    names = list(found.eliminations)
    if ratio > GRID[-1] or ratio == 0:
        return dict.fromkeys(names, ratio)
    blocks = {name: found.eliminations[name].scores.numel() for name in names}
    kept = kept_shares(found, layers, block_size)
    total = max(1, sum(macs[name] for name in names))
    prices = {name: macs[name] / total * kept[name] for name in names}
    gone = {name: blocks[name] / sum(blocks.values()) * GRID for name in names}
    curves = losses(found)

    def chosen(worth: float) -> tuple[dict[str, float], float]:
        """(ratios where a block that stays is worth so much besides, share of the blocks that goes too many)"""
        ratios = choose({name: curves[name] + worth * gone[name] for name in names}, prices, 1 - ratio, spend=False)
        return ratios, sum(at(gone[name], ratios[name]) for name in names) - ratio

    most = 10 * sum(float(curve[-1]) for curve in curves.values()) + 1
    low, high = -most, most
    (many, surplus), (few, lack) = chosen(low), chosen(high)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        ratios, difference = chosen(middle)
        if difference > 0:
            low, many, surplus = middle, ratios, difference
        else:
            high, few, lack = middle, ratios, difference
    share = lack / (lack - surplus) if surplus > lack else 0.0  # both hold in between: prices are all but linear
    return {name: share * many[name] + (1 - share) * few[name] for name in names}
