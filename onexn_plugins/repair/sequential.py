"""One pass through the dense and the pruned network side by side: each layer corrected on what really reaches it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import PrunableLayer, as_stored, fan_in, groups_of, out_channels, out_first
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.repair.abreast import Abreast
from onexn_plugins.repair.clipping import clipping, fit_behind
from onexn_plugins.repair.damping import best_damping, folded
from onexn_plugins.repair.images import Images
from onexn_plugins.repair.lockstep import Call, Run, layer_of
from onexn_plugins.repair.moments import Moments, outputs, samples, step_of
from onexn_plugins.repair.offsets import has_offset, norm_scale, set_offset
from onexn_plugins.repair.surroundings import Surroundings
from onexn_plugins.repair.survey import Progress

FAINT = 1e-3  # of the strongest channel's scale: a batch norm that weakens a channel more has no say in its target


def correct_layers(dense: nn.Module, pruned: nn.Module, images: Images, layers: Mapping[str, PrunableLayer],
                   keep: Mapping[str, Tensor], around: Mapping[str, Surroundings],
                   patterns: Mapping[str, BlockPattern], *,
                   context: Callable[[], Any] = torch.no_grad,
                   progress: Progress | None = None) -> None:
    """Give every layer of `pruned` the weights on its kept blocks that come closest to the dense network, in place.

    The target is what the layer gives in the dense network. Where it ends a residual sum, it is what the dense *sum*
    lacks: so the layer makes up for what its skip connection lost before. Where an activation clips the layer, beyond
    its bounds every output is as good (`clipping`).

    Args:
        dense: the reference, in evaluation mode.
        pruned: of the same form; its channels may be the first of the reference's.
        images: that calibrate.
        layers: of `pruned`; those without blocks to lose, such as depthwise ones, may be among them.
        keep: layer -> bool [block_rows, in / groups]; all of it where nothing goes.
        around: layer -> what stands behind it in `pruned`.
        patterns: the blocks of each layer.
        context: in which both run.
        progress: called as progress(done, total, what).
    """
    reference = dict(dense.named_modules())
    weights = [{name: model[name].weight for name in keep} for model in (reference, layers)]
    wanted = Counter(skip for name in keep if (skip := around[name].skip) is not None)
    with Abreast([dense, pruned], images, weights, {name: around[name] for name in around if name in keep},
                 frozenset(wanted), context) as runs:
        whole, parts = runs.groups
        done = 0
        while (name := runs.at()) is not None:
            if layer_of(parts) != name:
                raise OneXNError(name, "is not reached in the same order once the network is pruned",
                                 "Repair takes models that compute the same layers whatever the values")
            if progress is not None:
                progress(done, len(keep), f"correction: {name}")
            seen = _gathered(whole, parts, layers[name], around[name], runs.count, name)
            mean = _running_mean(dense, pruned, around[name])
            _correct(layers[name], keep[name], around[name], seen, patterns[name], mean)
            _forget(around[name].skip, wanted, [*whole, *parts])
            for run in parts:
                run.advance()
            done += 1


def _gathered(whole: list[Run], parts: list[Run], layer: PrunableLayer, around: Surroundings, count: int,
              name: str) -> Iterator[tuple[Tensor, Tensor]]:
    """What reaches the layer in the pruned network with what it should give, one pair of samples a batch.

    The dense runs go on.
    """
    weight, channels = layer.weight.detach(), out_channels(layer)
    step = step_of(around.size, count, fan_in(layer))
    for dense, pruned in zip(whole, parts, strict=True):
        assert dense.call is not None
        assert pruned.call is not None
        call: Call = pruned.call
        inputs = samples(call, weight, step, name)
        targets = outputs(call, _first(call, dense.result(), channels), step, weight.dtype)
        if around.skip is not None:
            there = pruned.listener.kept[around.skip]
            lost = _first(call, dense.listener.kept[around.skip], channels) - there
            targets = targets + _before_norm(outputs(call, lost, step, weight.dtype), around)
        dense.advance()
        yield inputs, targets


def _first(call: Call, values: Tensor, channels: int) -> Tensor:
    """The channels that the pruned network still has."""
    return values.narrow(-1 if call.function is nn.functional.linear else 1, 0, channels)


def _running_mean(dense: nn.Module, pruned: nn.Module, around: Surroundings) -> Tensor | None:
    """The dense network's mean where a layer of `pruned` takes up its shift in a batch norm."""
    name = next((name for name, module in pruned.named_modules() if module is around.norm), None)
    return None if name is None else dense.get_submodule(name).running_mean  # type: ignore[return-value]


def _before_norm(values: Tensor, around: Surroundings) -> Tensor:
    """What the layer must add so that its batch norm adds these [groups, samples, out / groups]."""
    scale = norm_scale(around, values.shape[0] * values.shape[2])
    inverse = torch.where(scale.abs() > FAINT * scale.abs().max(), 1 / scale, torch.zeros_like(scale))
    return values * inverse.unflatten(0, (len(values), 1, -1)).to(values)


def _correct(layer: PrunableLayer, keep: Tensor, around: Surroundings, seen: Iterable[tuple[Tensor, Tensor]],
             pattern: BlockPattern, mean: Tensor | None) -> None:
    centred, groups = has_offset(layer, around), groups_of(layer)
    limits = clipping(around, mean, (groups, out_channels(layer) // groups))
    folds, old = folded(groups, fan_in(layer), out_channels(layer) // groups), out_first(layer, layer.weight)
    pairs = []
    for number, (inputs, targets) in enumerate(seen):
        folds[number % len(folds)].add(inputs, targets)
        if limits is not None:
            pairs.append((inputs, targets))
    damping = best_damping(old, keep, pattern, folds, centred)
    weight, shift = fit_behind(old, keep, pattern, Moments.total(folds), pairs, limits, centred=centred,
                               damping=damping)
    with torch.no_grad():
        layer.weight.copy_(as_stored(layer, weight))
    if centred:
        set_offset(layer, around, shift, mean)


def _forget(skip: int | None, wanted: Counter[int], group: list[Run]) -> None:
    """Let go of a kept value that no later layer asks for."""
    if skip is None:
        return
    wanted[skip] -= 1
    if not wanted[skip]:
        for run in group:
            run.listener.kept.pop(skip, None)
