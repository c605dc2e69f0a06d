"""What the dense network tells in one pass: how each layer would lose its blocks, and how much that hurts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.layers import PrunableLayer, as_stored, fan_in, groups_of, out_channels, out_first
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.repair.abreast import Abreast
from onexn_plugins.repair.channels import as_one_row
from onexn_plugins.repair.clipping import Limits, clipping, fit_behind, given
from onexn_plugins.repair.damping import best_damping, folded
from onexn_plugins.repair.divergence import divergence
from onexn_plugins.repair.elimination import DAMPING, Elimination, block_rows, eliminate
from onexn_plugins.repair.harm import Harm
from onexn_plugins.repair.images import Images
from onexn_plugins.repair.moments import Moments, samples, step_of
from onexn_plugins.repair.offsets import add_offset, has_offset
from onexn_plugins.repair.replay import Recording
from onexn_plugins.repair.surroundings import Surroundings
from onexn_plugins.selection import keep_highest

JUDGES = 40  # images that measure it
SHARES = (0.3, 0.6, 0.9)  # of a layer's blocks: where its harm is measured

LEAST = 1e-9  # harm of what goes

_Thinned = tuple[float, Tensor, Tensor]  # squared error of a layer without some blocks, its weight, its shift
Progress = Callable[[int, int, str], None]  # (steps done, steps in all, what is being done)


@dataclass(frozen=True)
class Survey:
    """By layer, in the order in which they are computed.

    Attributes:
        eliminations: order and loss of every block.
        harm: divergence of the network's outputs when blocks of this layer are gone and the rest of it is corrected.
        columns: eliminations in whole input channels, of the layers for which they were asked.
    """

    eliminations: dict[str, Elimination]
    harm: dict[str, Harm]
    columns: dict[str, Elimination] = field(default_factory=dict)


def layer_samples(model: nn.Module, images: Images, layers: Mapping[str, PrunableLayer],
                  around: Mapping[str, Surroundings], context: Callable[[], Any]) -> Iterator[
                      tuple[str, Iterator[Tensor]]]:
    """What each layer reads, batch by batch, one layer at a time, in the order in which they are computed."""
    with Abreast([model], images, [{name: layers[name].weight for name in around}], around, context=context) as runs:
        while (name := runs.at()) is not None:
            weight, step = layers[name].weight.detach(), step_of(around[name].size, runs.count, fan_in(layers[name]))
            group = runs.groups[0]
            yield name, (samples(run.call, weight, step, name) for run in group if run.call is not None)
            for run in group:
                run.advance()


def layer_moments(model: nn.Module, images: Images, layers: Mapping[str, PrunableLayer],
                  around: Mapping[str, Surroundings], context: Callable[[], Any]) -> Iterator[tuple[str, Moments]]:
    """Moments of what each layer reads."""
    for name, batches in layer_samples(model, images, layers, around, context):
        moments = Moments(groups_of(layers[name]), fan_in(layers[name]))
        for inputs in batches:
            moments.add(inputs)
        yield name, moments


def survey(model: nn.Module, images: Images, layers: Mapping[str, PrunableLayer],
           around: Mapping[str, Surroundings], patterns: Mapping[str, BlockPattern], *,
           context: Callable[[], Any] = torch.no_grad,
           known: Mapping[str, Elimination] | None = None, progress: Progress | None = None,
           finished: Callable[[str, Elimination], None] | None = None, harm: bool = True,
           importance: Mapping[str, Tensor] | None = None, columns: Collection[str] = ()) -> Survey:
    """Eliminate every layer's blocks on what reaches it in the dense network, and measure the harm of some of them.

    Args:
        model: in evaluation mode; as before at the end.
        images: that calibrate.
        layers: to prune.
        around: what stands behind each.
        patterns: the blocks of each.
        context: in which the model runs, such as autocast.
        known: eliminations from an interrupted survey, which are not repeated.
        progress: called as progress(done, total, what).
        finished: called with every elimination that was made.
        harm: False: leave it out.
        importance: layer -> weights of its output channels' squared errors, see `channel_importance`.
        columns: layers whose input channels are eliminated as well.
    """
    report = progress or (lambda done, total, what: None)
    eliminations: dict[str, Elimination] = {}
    whole: dict[str, Elimination] = {}
    thinned: dict[str, list[_Thinned]] = {}
    images, judges = images.apart(JUDGES) if harm else (images, images)
    for name, batches in layer_samples(model, images, layers, around, context):
        report(len(eliminations), len(around), f"elimination: {name}")
        weight, pattern = out_first(layers[name], layers[name].weight.detach()), patterns[name]
        seen = _Seen.of(layers[name], around[name], batches, pattern, taught=harm)
        inputs, own = seen.moments.statistics(seen.centred).inputs, (importance or {}).get(name)
        found = (known or {}).get(name) or eliminate(weight, pattern, inputs, importance=own)
        eliminations[name] = found
        if name in columns:
            whole[name] = eliminate(weight, as_one_row(weight), inputs, importance=own)
        if finished is not None:
            finished(name, found)
        if harm:
            ratios = [found.ratio(share) for share in SHARES]
            thinned[name] = [(float(found.error(ratio)), *seen.corrected(
                weight, keep_highest(found.scores, ratio), pattern)) for ratio in ratios]
    return Survey(eliminations, _harm(model, judges.batches, layers, around, thinned, context, report), whole)


@dataclass(frozen=True)
class _Seen:
    """What a layer reads and gives in the dense network.

    Attributes:
        moments: of the samples, with the outputs as targets.
        pairs: samples and outputs where an activation clips these.
        limits: that it clips them to.
        bias: that the outputs contain, float64 [out].
        centred: is there a place for a shift?
        damping: with which half of the blocks give best what images that were left out should.
    """

    moments: Moments
    pairs: list[tuple[Tensor, Tensor]]
    limits: Limits | None
    bias: Tensor
    centred: bool
    damping: float

    @classmethod
    def of(cls, layer: PrunableLayer, around: Surroundings, batches: Iterator[Tensor], pattern: BlockPattern,
           taught: bool) -> _Seen:
        groups, channels, centred = groups_of(layer), out_channels(layer), has_offset(layer, around)
        folds = folded(groups, fan_in(layer), channels // groups)
        limits = clipping(around, getattr(around.norm, "running_mean", None), (groups, channels // groups))
        own = out_first(layer, layer.weight.detach())
        bias = torch.zeros(channels) if layer.bias is None else layer.bias.detach()
        pairs = []
        for number, inputs in enumerate(batches):
            targets = given(own, bias, inputs) if taught else None
            folds[number % len(folds)].add(inputs, targets)
            if limits is not None and targets is not None:
                pairs.append((inputs, targets))
        moments = Moments.total(folds)
        damping = best_damping(own, _half(own, pattern, moments), pattern, folds, centred) if taught else DAMPING
        return cls(moments, pairs, limits, bias.double().cpu(), centred, damping)

    def corrected(self, weight: Tensor, keep: Tensor, pattern: BlockPattern) -> tuple[Tensor, Tensor]:
        """The weight on these blocks that gives the dense outputs best, and the shift that goes with it."""
        fitted, shift = fit_behind(weight, keep, pattern, self.moments, self.pairs, self.limits, centred=self.centred,
                                   damping=self.damping, rounds=1)
        return fitted, shift - self.bias if self.centred else shift


def _half(weight: Tensor, pattern: BlockPattern, moments: Moments) -> Tensor:
    """The blocks that would stay if each stood for itself, bool [block_rows, in / groups]."""
    sizes = (moments.inputs / moments.count).diagonal(dim1=-2, dim2=-1)  # [groups, d]
    sizes = sizes.repeat_interleave(pattern.rows_per_group, 0).unflatten(1, (pattern.in_channels, -1))
    return keep_highest((block_rows(weight, pattern).square().sum(1) * sizes).sum(2), 0.5)


def _harm(model: nn.Module, batches: Sequence[Any], layers: Mapping[str, PrunableLayer],
          around: Mapping[str, Surroundings], thinned: Mapping[str, Sequence[_Thinned]], context: Callable[[], Any],
          report: Progress) -> dict[str, Harm]:
    dense: list[Any] = []
    found: dict[str, list[list[Any]]] = {name: [[] for _ in variants] for name, variants in thinned.items()}
    for done, batch in enumerate(batches if thinned else ()):
        report(done, len(batches), "harm")
        recording = Recording.of(model, batch, context)
        dense.append(recording.output)
        for name, variants in thinned.items():
            for (_, weight, shift), outputs in zip(variants, found[name], strict=True):
                with _exchanged(layers[name], around[name], weight, shift):
                    outputs.append(recording.again(around[name].number))
    return {name: Harm(tuple(error for error, *_ in variants),
                       tuple(max(divergence(dense, outputs).kl, LEAST) for outputs in found[name]))
            for name, variants in thinned.items()}


@contextmanager
def _exchanged(layer: PrunableLayer, around: Surroundings, weight: Tensor, shift: Tensor) -> Iterator[None]:
    """While it lasts, the layer has another weight and its outputs are shifted."""
    place = layer.bias if isinstance(layer.bias, Tensor) else getattr(around.norm, "running_mean", None)
    before = layer.weight.detach().clone(), None if place is None else place.detach().clone()
    try:
        with torch.no_grad():
            layer.weight.copy_(as_stored(layer, weight))
        add_offset(layer, around, shift)
        yield
    finally:
        with torch.no_grad():
            layer.weight.copy_(before[0])
            if place is not None and before[1] is not None:
                place.copy_(before[1])
