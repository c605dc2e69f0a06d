"""Every step of repair by itself, on one network at one share of its multiply-adds."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.repair.photos import Photos
from onexn_plugins import fold, scores
from onexn_plugins.layers import groups_of, prunable_layers, weighted_layers
from onexn_plugins.masking import masks
from onexn_plugins.measurement import measure
from onexn_plugins.pattern import BlockPattern, weight_mask
from onexn_plugins.rearrangement import applied_moves, apply_moves
from onexn_plugins.repair import repair
from onexn_plugins.repair.distillation import distil
from onexn_plugins.repair.importance import channel_importance
from onexn_plugins.repair.options import Context, depthwise_layers
from onexn_plugins.repair.plan import Budget
from onexn_plugins.repair.sequential import correct_layers
from onexn_plugins.repair.surroundings import surroundings
from onexn_plugins.repair.survey import Survey, survey
from onexn_plugins.repair.work import fast
from onexn_plugins.selection import keep_highest

L1 = "L1, nothing else"
ALONE = "elimination and least squares, uniform ratios"
SUMS = "targets of residual sums, depthwise layers corrected"
PLANNED = "planned ratios"
WEIGHED = "channels weighed by what they mean to the outputs"
REARRANGED = "channels rearranged first"
BLOCKS_DISTILLED = "then distilled"
FILTERS = "instead: hidden channels alone, the same repair"
FILTERS_DISTILLED = "hidden channels alone, then distilled"
BOTH = "instead: hidden channels and blocks, planned together"
BOTH_DISTILLED = "hidden channels and blocks, then distilled"
DISTILLED = {BLOCKS_DISTILLED: REARRANGED, FILTERS_DISTILLED: FILTERS, BOTH_DISTILLED: BOTH}  # and what they start from
ORDER = (L1, ALONE, SUMS, PLANNED, WEIGHED, REARRANGED, BLOCKS_DISTILLED, FILTERS, FILTERS_DISTILLED, BOTH,
         BOTH_DISTILLED)  # as the table shows them

Rung = tuple[nn.Module, dict[str, float]]  # a network and the share of its blocks that each layer lost


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
        kept: a folder of repaired networks with the CPU seconds they took; distilled rungs start from what is there.
    """

    dense: nn.Module
    photos: Photos
    share: float
    block_size: int
    steps: int
    say: Callable[[str], None]
    kept: Path | None = None
    context: Context = field(init=False)

    def __post_init__(self) -> None:
        self.context = Context(self.dense)
        self._surveys: dict[bool, Survey] = {}
        self._spent = 0.0  # CPU seconds of what was taken from `kept`

    def rungs(self, done: Collection[str] = (),
              wanted: Collection[str] = ORDER) -> Iterator[tuple[str, nn.Module, dict[str, float], float]]:
        """(step, network, ratios, seconds of CPU it took), what matters most first; without those that are done."""
        climb: dict[str, Callable[[], Rung]] = {
            L1: self._by_l1, **{title: partial(self._folded, title) for title in (REARRANGED, FILTERS, BOTH)},
            **({title: partial(self._distilled, title) for title in DISTILLED} if self.steps else {}),
            WEIGHED: lambda: self._corrected(self._survey(True), self._planned(self._survey(True))),
            PLANNED: lambda: self._corrected(self._survey(False), self._planned(self._survey(False))),
            SUMS: lambda: self._corrected(self._survey(False), self._uniform),
            ALONE: lambda: self._corrected(self._survey(False), self._uniform, alone=True)}
        for title, rung in climb.items():
            if title in wanted and title not in done:
                self.say(title)
                start, self._spent = time.process_time(), 0.0
                model, ratios = rung()
                yield title, model, ratios, self._spent + time.process_time() - start

    @property
    def _uniform(self) -> dict[str, float]:
        return dict.fromkeys(prunable_layers(self.dense), self.share)

    def _by_l1(self) -> Rung:
        model = copy.deepcopy(self.dense)
        for name, layer in prunable_layers(model).items():
            pattern = self._pattern(layer, name)
            keep = keep_highest(scores.l1(layer.weight, pattern), self.share)
            layer.weight.data.mul_(weight_mask(keep, pattern, layer.weight))
        return model, self._uniform

    def _folded(self, title: str) -> Rung:
        model, ratios = self._repaired(title)
        return fold(model), ratios

    def _distilled(self, title: str) -> Rung:
        model, ratios = self._repaired(DISTILLED[title])
        dense = copy.deepcopy(self.dense)
        apply_moves(dense, applied_moves(model))
        keep = {name: mask.keep for name, mask in masks(model).items()}
        fold(model)
        distil(fast(dense), fast(model), self.photos.calibrate, keep, self._patterns(prunable_layers(model)), 0,
               steps=self.steps, context=self.context, progress=self._now_and_then)
        return model, ratios

    def _repaired(self, title: str) -> Rung:
        """By the whole method for blocks, for channels or for both; taken from `kept` if it is there."""
        path = None if self.kept is None else self.kept / f"{ORDER.index(title)}.pt"
        if path is not None and path.exists():
            found = torch.load(path, weights_only=False)
            self._spent = found["seconds"]
            return found["model"], found["ratios"]
        start, options = time.process_time(), dict[str, Any]()
        ratio: Any = Budget(macs=self._macs_left())
        if title == FILTERS:
            ratio, options = dict.fromkeys(self._uniform, 0.0), {"channels": self.share, "rearrange": False}
        elif title == BOTH:
            options = {"channels": "auto"}
        model = copy.deepcopy(self.dense)
        ratios = repair(model, self.photos.calibrate.batches, block_size=self.block_size, progress=self._stages(),
                        pruning_ratio=ratio, **options).ratios
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"model": model, "ratios": ratios, "seconds": time.process_time() - start}, path)
        return model, ratios

    def _stages(self) -> Callable[[int, int, str], None]:
        seen = set[str]()

        def report(done: int, total: int, what: str) -> None:
            title = what.split(":")[0]
            if title not in seen:
                seen.add(title)
                self.say(title)

        return report

    def _now_and_then(self, done: int, total: int, what: str) -> None:
        if done % 20 == 0:
            self.say(f"{what} {done} of {total}")

    def _macs_left(self) -> float:
        report = measure(self.dense, self.block_size, self._example)
        pruned = sum(layer.dense_macs or 0 for layer in report.layers if layer.prunable)
        return (report.dense_macs or 0) - self.share * pruned

    def _survey(self, weighed: bool) -> Survey:
        """Of the network with its channels where they are; once."""
        if weighed not in self._surveys:
            layers = prunable_layers(self.dense)
            around = surroundings(self.dense, self._example, {name: layer.weight for name, layer in layers.items()})
            importance = channel_importance(self.dense, self.photos.calibrate, layers) if weighed else {}
            self._surveys[weighed] = survey(
                self.dense, self.photos.calibrate, layers, around, self._patterns(layers), context=self.context,
                progress=self._stages(), importance=importance)
        return self._surveys[weighed]

    @property
    def _example(self) -> Tensor:
        return self.photos.calibrate.batches[0][:1]

    def _patterns(self, layers: Mapping[str, Any]) -> dict[str, BlockPattern]:
        return {name: self._pattern(layer, name) for name, layer in layers.items()}

    def _pattern(self, layer: Any, name: str) -> BlockPattern:
        return BlockPattern.of(layer.weight, self.block_size, groups_of(layer), name)

    def _planned(self, found: Survey) -> dict[str, float]:
        budget = Budget(macs=self._macs_left())
        return budget.ratios(found, self.dense, prunable_layers(self.dense), self._example, self.block_size)

    def _corrected(self, found: Survey, ratios: Mapping[str, float], alone: bool = False) -> Rung:
        """A repaired copy; alone: every layer's target is what it gives itself, and depthwise layers stay."""
        model = copy.deepcopy(self.dense)
        layers, patterns = prunable_layers(model), self._patterns(prunable_layers(model))
        keep = {name: keep_highest(found.eliminations[name].scores, ratio) for name, ratio in ratios.items()}
        if not alone:
            for name in depthwise_layers(model, ()):
                layers[name] = weighted_layers(model)[name]
                patterns[name] = BlockPattern.of(layers[name].weight, 1, groups_of(layers[name]), name)
                keep[name] = torch.ones(patterns[name].shape, dtype=torch.bool)
        around = surroundings(model, self._example, {name: layers[name].weight for name in keep})
        if alone:
            around = {name: replace(each, skip=None) for name, each in around.items()}
        correct_layers(self.dense, model, self.photos.calibrate, layers, keep, around, patterns, context=self.context)
        return model, dict(ratios)


def zeros(model: nn.Module, block_size: int) -> float:
    """Share of the prunable layers' blocks that is gone."""
    with torch.no_grad():
        return measure(model, block_size).sparsity.blocks
