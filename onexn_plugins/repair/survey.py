"""What the dense network tells in one pass: how each layer would lose its blocks, and how much that hurts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.inputs import call_model
from onexn_plugins.layers import PrunableLayer, as_stored, fan_in, groups_of, out_channels, out_first
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.repair.channels import as_one_row
from onexn_plugins.repair.clipping import Limits, clipping, fit_behind, given
from onexn_plugins.repair.divergence import divergence
from onexn_plugins.repair.elimination import Elimination, eliminate
from onexn_plugins.repair.harm import Harm
from onexn_plugins.repair.images import Images
from onexn_plugins.repair.lockstep import layer_of, runs
from onexn_plugins.repair.moments import Moments, samples, step_of
from onexn_plugins.repair.offsets import add_offset, has_offset
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
    images = images.fitting(held(around))
    with runs(model, images.batches, {name: layers[name].weight for name in around}, context=context) as group:
        while (name := layer_of(group)) is not None:
            weight, step = layers[name].weight.detach(), step_of(around[name].size, images.count, fan_in(layers[name]))
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


def held(around: Mapping[str, Surroundings], networks: int = 1) -> int:
    """Bytes of activations that stay alive of each image: what a layer reads, a skip connection and what is between."""
    return 3 * networks * max((each.bytes for each in around.values()), default=0)


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
    for name, batches in layer_samples(model, images, layers, around, context):
        report(len(eliminations), len(around), f"elimination: {name}")
        weight, pattern = out_first(layers[name], layers[name].weight.detach()), patterns[name]
        seen = _Seen.of(layers[name], around[name], batches, taught=harm)
        statistics = seen.moments.statistics(has_offset(layers[name], around[name]))
        found = (known or {}).get(name) or eliminate(
            weight, pattern, statistics.inputs, importance=(importance or {}).get(name))
        eliminations[name] = found
        if name in columns:
            whole[name] = eliminate(weight, as_one_row(weight), statistics.inputs,
                                    importance=(importance or {}).get(name))
        if finished is not None:
            finished(name, found)
        if harm:
            ratios = [found.ratio(share) for share in SHARES]
            thinned[name] = [(float(found.error(ratio)), *seen.corrected(
                weight, keep_highest(found.scores, ratio), pattern)) for ratio in ratios]
    return Survey(eliminations, _harm(model, images.some(JUDGES), layers, around, thinned, context, report), whole)


@dataclass(frozen=True)
class _Seen:
    """What a layer reads and gives in the dense network.

    Attributes:
        moments: of the samples, with the outputs as targets.
        pairs: samples and outputs where an activation clips these.
        limits: that it clips them to.
        bias: that the outputs contain, float64 [out].
        centred: is there a place for a shift?
    """

    moments: Moments
    pairs: list[tuple[Tensor, Tensor]]
    limits: Limits | None
    bias: Tensor
    centred: bool

    @classmethod
    def of(cls, layer: PrunableLayer, around: Surroundings, batches: Iterator[Tensor], taught: bool) -> _Seen:
        groups, channels = groups_of(layer), out_channels(layer)
        moments = Moments(groups, fan_in(layer), channels // groups)
        limits = clipping(around, getattr(around.norm, "running_mean", None), (groups, channels // groups))
        own = out_first(layer, layer.weight.detach())
        bias = torch.zeros(channels) if layer.bias is None else layer.bias.detach()
        pairs = []
        for inputs in batches:
            targets = given(own, bias, inputs) if taught else None
            moments.add(inputs, targets)
            if limits is not None and targets is not None:
                pairs.append((inputs, targets))
        return cls(moments, pairs, limits, bias.double().cpu(), has_offset(layer, around))

    def corrected(self, weight: Tensor, keep: Tensor, pattern: BlockPattern) -> tuple[Tensor, Tensor]:
        """The weight on these blocks that gives the dense outputs best, and the shift that goes with it."""
        fitted, shift = fit_behind(weight, keep, pattern, self.moments, self.pairs, self.limits, centred=self.centred,
                                   rounds=1)
        return fitted, shift - self.bias if self.centred else shift


def _harm(model: nn.Module, batches: Sequence[Any], layers: Mapping[str, PrunableLayer],
          around: Mapping[str, Surroundings], thinned: Mapping[str, Sequence[_Thinned]], context: Callable[[], Any],
          report: Progress) -> dict[str, Harm]:
    def outputs() -> list[Any]:
        with torch.no_grad(), context():
            return [call_model(model, batch) for batch in batches]

    dense = outputs() if thinned else []
    harm = {}
    for number, (name, variants) in enumerate(thinned.items()):
        report(number, len(thinned), f"harm: {name}")
        values = []
        for _, weight, shift in variants:
            with _exchanged(layers[name], around[name], weight, shift):
                values.append(max(divergence(dense, outputs()).kl, LEAST))
        harm[name] = Harm(tuple(error for error, *_ in variants), tuple(values))
    return harm


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
