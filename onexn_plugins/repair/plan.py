"""Ratios of the layers: from one ratio for the network, or for a budget of multiply-adds, bytes or milliseconds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.inputs import check_inputs
from onexn_plugins.layers import PrunableLayer
from onexn_plugins.measurement import measure
from onexn_plugins.rearrangement.proof import clean_copy
from onexn_plugins.repair.budget import GRID, at, choose
from onexn_plugins.repair.elimination import MAX_RATIO
from onexn_plugins.repair.images import read_images
from onexn_plugins.repair.latency import LatencyTable
from onexn_plugins.repair.options import Context, check_amount, layers_to_prune
from onexn_plugins.repair.prices import bytes_prices, macs_prices
from onexn_plugins.repair.surroundings import surroundings
from onexn_plugins.repair.survey import HALF, Progress, Survey, survey

BISECTIONS = 12


@dataclass(frozen=True)
class Budget:
    """What the pruned network may cost; one of the first three is given.

    Attributes:
        macs: multiply-adds of one forward pass on the example inputs, all layers together.
        bytes: of all parameters, with two bytes for the index of each kept block.
        latency_ms: milliseconds of the compiled network.
        target: that it is compiled for.
        table: file of the measured latencies, which are measured where it does not exist, and kept.
    """

    macs: float | None = None
    bytes: float | None = None
    latency_ms: float | None = None
    target: str = "host"
    table: Path | None = None

    def __post_init__(self) -> None:
        given = {name: value for name in ("macs", "bytes", "latency_ms") if (value := getattr(self, name)) is not None}
        if len(given) != 1:
            raise OneXNError("budget", f"one of latency_ms, macs and bytes is needed, got {len(given)}",
                             "Say what the pruned network may cost, for example latency_ms=5")
        name, value = next(iter(given.items()))
        check_amount(value, name)

    def ratios(self, found: Survey, model: nn.Module, layers: Mapping[str, PrunableLayer], example_inputs: Any,
               block_size: int) -> dict[str, float]:
        """The ratio of each layer that meets it with the least harm.

        Raises:
            OneXNError: it cannot be met; the message says what can.
        """
        known = {name: layers[name] for name in found.eliminations}
        if self.latency_ms is not None:
            table = LatencyTable.measured(model, known, example_inputs, block_size, self.target, self.table)
            return choose(losses(found), table.prices, self.latency_ms - table.fixed, " ms")
        if self.macs is not None:
            prices, fixed = macs_prices(measure(model, block_size, example_inputs), known)
            return choose(losses(found), prices, self.macs - fixed, " multiply-adds besides those of other layers")
        prices, fixed = bytes_prices(model, known, block_size)
        return choose(losses(found), prices, float(self.bytes or 0) - fixed, " bytes besides those of other layers")


def plan_ratios(model: nn.Module, images: Any, example_inputs: Any, *, target: str = "host",
                latency_ms: float | None = None, macs: float | None = None, bytes: float | None = None,
                block_size: int = 4, ignored_layers: Iterable[str | nn.Module] = (), full: bool | None = None,
                preprocess: Callable[[Any], Tensor] | None = None, table: str | os.PathLike[str] | None = None,
                progress: Progress | None = None) -> dict[str, float]:
    """The ratio of each layer with which the pruned network meets a budget and loses least.

    Both pruners and `repair` take the result.

    Args:
        model: any eager model; it is not changed.
        images: as `repair` takes them.
        example_inputs: what forward takes, of the shape that the budget is for.
        target: that latencies are measured on: one this machine can run.
        latency_ms, macs, bytes: the budget, one of them; see `Budget`.
        block_size: N.
        ignored_layers, full, preprocess, progress: as in `repair`.
        table: file of measured latencies, written once and read from then on.

    Returns:
        Layer -> share of its blocks that goes, from 0 to 0.95.

    Raises:
        OneXNError: bad arguments or images, or a budget that cannot be met: the message says which one can.
    """
    budget = Budget(macs, bytes, latency_ms, target, None if table is None else Path(table))
    names = list(layers_to_prune(model, ignored_layers, full, block_size))
    check_inputs(example_inputs)
    found = read_images(images, model, preprocess)
    copy, context = clean_copy(model).eval(), Context(model)
    layers: dict[str, Any] = {name: copy.get_submodule(name) for name in names}
    around = surroundings(copy, example_inputs, {name: layer.weight for name, layer in layers.items()})
    known = survey(copy, found, layers, around, block_size, context=context, progress=progress)
    return budget.ratios(known, copy, layers, example_inputs, block_size)


def losses(found: Survey) -> dict[str, np.ndarray]:
    """Harm of each layer at every ratio of GRID: measured at one half, in between as its error curve goes."""
    curves = {}
    for name, elimination in found.eliminations.items():
        curve = elimination.curve().numpy()
        places = np.clip(np.round(GRID * (len(curve) - 1)), 0, len(curve) - 1).astype(int)
        half = curve[round(HALF * (len(curve) - 1))]
        curves[name] = found.harm[name] * curve[places] / max(float(half), 1e-300)
    return curves


def share_ratios(found: Survey, layers: Mapping[str, PrunableLayer], macs: Mapping[str, int], ratio: float) -> dict[
        str, float]:
    """Ratios with which this share of the layers' weights and of their multiply-adds goes, where it harms least."""
    names = list(found.eliminations)
    if ratio > MAX_RATIO or ratio == 0:
        return dict.fromkeys(names, ratio)
    weights = {name: layers[name].weight.numel() for name in names}
    by_macs, by_weights = ({name: each[name] / max(1, sum(each[name] for name in names)) * (1 - GRID)
                            for name in names} for each in (macs, weights))
    curves = losses(found)

    def chosen(share: float) -> tuple[dict[str, float], float]:
        """(ratios where the price is a mixture, by how much too few weights go rather than multiply-adds)"""
        prices = {name: share * by_macs[name] + (1 - share) * by_weights[name] for name in names}
        ratios = choose(curves, prices, 1 - ratio)
        left = [sum(at(each[name], ratios[name]) for name in names) for each in (by_weights, by_macs)]
        return ratios, left[0] - left[1]

    low, high = 0.0, 1.0
    ratios, excess = chosen(high)
    if excess <= 0:
        return ratios
    for _ in range(BISECTIONS):  # both shares are met where they are equal
        middle = (low + high) / 2
        ratios, excess = chosen(middle)
        low, high = (low, middle) if excess > 0 else (middle, high)
    return ratios
