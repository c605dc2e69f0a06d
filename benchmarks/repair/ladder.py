"""Every step of repair by itself, on one network at one share of its multiply-adds."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.repair.photos import Photos
from onexn_plugins import fold, rearrange, scores
from onexn_plugins.layers import groups_of, prunable_layers, weighted_layers
from onexn_plugins.measurement import measure
from onexn_plugins.pattern import BlockPattern, weight_mask
from onexn_plugins.repair import repair
from onexn_plugins.repair.distillation import distil
from onexn_plugins.repair.elimination import kernel_saliency
from onexn_plugins.repair.options import Context
from onexn_plugins.repair.plan import Budget
from onexn_plugins.repair.sequential import correct_layers
from onexn_plugins.repair.surroundings import Surroundings, surroundings
from onexn_plugins.repair.survey import Survey, layer_moments, survey
from onexn_plugins.selection import keep_highest

L1 = "L1, nothing else"
ALONE = "elimination and least squares, uniform ratios"
SUMS = "targets of residual sums"
PLANNED = "planned ratios"
REARRANGED = "channels rearranged first"
DISTILLED = "distillation"
CHANNELS = "instead: half of it as whole hidden channels, then rearranged and the rest as blocks"
ORDER = (L1, ALONE, SUMS, PLANNED, REARRANGED, DISTILLED, CHANNELS)  # as the table shows them


@dataclass
class Ladder:
    """
    Attributes:
        dense: the network.
        photos: that calibrate and judge.
        share: of the multiply-adds of its prunable layers that goes, the same in every step.
        block_size: N.
        steps: of distillation; none without.
        say: told what runs.
    """

    dense: nn.Module
    photos: Photos
    share: float
    block_size: int
    steps: int
    say: Callable[[str], None]
    context: Context = field(init=False)

    def __post_init__(self) -> None:
        self.context = Context(self.dense)

    def rungs(self) -> Iterator[tuple[str, nn.Module, dict[str, float], float]]:
        """(step, network, ratios, seconds of CPU from the dense network on), the whole method first."""
        names = list(prunable_layers(self.dense))
        uniform = dict.fromkeys(names, self.share)
        yield L1, self._by_l1(uniform), uniform, 0.0
        start = time.process_time()
        self.say(REARRANGED)
        moved = self._rearranged(names)
        found, around = self._survey(moved, names)
        planned = self._planned(found, moved, names)
        model = self._corrected(moved, found, around, planned, False)
        spent = time.process_time() - start
        yield REARRANGED, model, planned, spent
        yield from self._with_channels()
        start = time.process_time()
        plain, around = self._survey(self.dense, names)
        surveyed = time.process_time() - start
        for title, ratios, alone in ((PLANNED, self._planned(plain, self.dense, names), False),
                                     (SUMS, uniform, False), (ALONE, uniform, True)):
            self.say(title)
            start = time.process_time()
            copied = self._corrected(self.dense, plain, around, ratios, alone)
            yield title, copied, ratios, surveyed + time.process_time() - start
        if self.steps:
            start = time.process_time()
            keep = {name: keep_highest(found.eliminations[name].scores, ratio) for name, ratio in planned.items()}
            distil(moved, model, self.photos.calibrate, keep, self._patterns(prunable_layers(model)), 0,
                   steps=self.steps, progress=self._now_and_then)
            yield DISTILLED, model, planned, spent + time.process_time() - start

    def _with_channels(self) -> Iterator[tuple[str, nn.Module, dict[str, float], float]]:
        self.say(CHANNELS)
        model, start = copy.deepcopy(self.dense), time.process_time()
        result = repair(model, self.photos.calibrate.batches, block_size=self.block_size, channels=self.share / 2,
                        pruning_ratio=Budget(macs=self._macs_left()))
        yield CHANNELS, fold(model), result.ratios, time.process_time() - start

    def _now_and_then(self, done: int, total: int, what: str) -> None:
        if done % 20 == 0:
            self.say(f"{what} {done} of {total}")

    def _macs_left(self) -> float:
        report = measure(self.dense, self.block_size, self._example)
        pruned = sum(layer.dense_macs or 0 for layer in report.layers if layer.prunable)
        return (report.dense_macs or 0) - self.share * pruned

    def _survey(self, model: nn.Module, names: list[str]) -> tuple[Survey, dict[str, Surroundings]]:
        layers = {name: weighted_layers(model)[name] for name in names}
        around = surroundings(model, self._example, {name: layer.weight for name, layer in layers.items()})
        seen = set[str]()

        def report(done: int, total: int, what: str) -> None:
            title = what.split(":")[0]
            if title not in seen:
                seen.add(title)
                self.say(title)

        return survey(model, self.photos.calibrate, layers, around, self._patterns(layers), context=self.context,
                      progress=report), around

    @property
    def _example(self) -> Tensor:
        return self.photos.calibrate.batches[0][:1]

    def _patterns(self, layers: Mapping[str, Any]) -> dict[str, BlockPattern]:
        return {name: self._pattern(layer, name) for name, layer in layers.items()}

    def _pattern(self, layer: Any, name: str) -> BlockPattern:
        return BlockPattern.of(layer.weight, self.block_size, groups_of(layer), name)

    def _by_l1(self, ratios: Mapping[str, float]) -> nn.Module:
        model = copy.deepcopy(self.dense)
        for name, ratio in ratios.items():
            layer: Any = model.get_submodule(name)
            pattern = self._pattern(layer, name)
            keep = keep_highest(scores.l1(layer.weight, pattern), ratio)
            layer.weight.data.mul_(weight_mask(keep, pattern, layer.weight))
        return model

    def _planned(self, found: Survey, model: nn.Module, names: list[str]) -> dict[str, float]:
        budget = Budget(macs=self._macs_left())
        layers = {name: weighted_layers(model)[name] for name in names}
        return budget.ratios(found, model, layers, self._example, self.block_size)

    def _corrected(self, dense: nn.Module, found: Survey, around: Mapping[str, Surroundings],
                   ratios: Mapping[str, float], alone: bool) -> nn.Module:
        """A repaired copy; alone: every layer's target is what it gives itself."""
        model = copy.deepcopy(dense)
        layers = {name: weighted_layers(model)[name] for name in ratios}
        keep = {name: keep_highest(found.eliminations[name].scores, ratio) for name, ratio in ratios.items()}
        own = surroundings(model, self._example, {name: layer.weight for name, layer in layers.items()})
        if alone:
            own = {name: replace(each, skip=None) for name, each in own.items()}
        correct_layers(dense, model, self.photos.calibrate, layers, keep, own, self._patterns(layers),
                       context=self.context)
        return model

    def _rearranged(self, names: list[str]) -> nn.Module:
        model = copy.deepcopy(self.dense)
        layers = {name: weighted_layers(model)[name] for name in names}
        around = surroundings(model, self._example, {name: layer.weight for name, layer in layers.items()})
        saliency = {name: kernel_saliency(layers[name].weight, moments.statistics().inputs, groups_of(layers[name]))
                    for name, moments in layer_moments(model, self.photos.calibrate, layers, around, self.context)}
        rearrange(model, self._example, block_size=self.block_size, pruning_ratio=self.share, saliency=saliency)
        return model


def zeros(model: nn.Module, block_size: int) -> float:
    """Share of the prunable layers' blocks that is gone."""
    with torch.no_grad():
        return measure(model, block_size).sparsity.blocks
