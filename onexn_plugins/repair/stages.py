"""The stages of repair, each on the copy that `Work` holds: arrange, remove, correct, distil."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from onexn_plugins.layers import PrunableLayer, fan_in, groups_of, mask_for, out_first, pattern_of
from onexn_plugins.measurement import measure
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.rearrangement import apply_moves
from onexn_plugins.rearrangement.run import rearrange_layers
from onexn_plugins.repair.abreast import room
from onexn_plugins.repair.distillation import Distillation, DistillationError
from onexn_plugins.repair.distillation import distil as train
from onexn_plugins.repair.elimination import Elimination, kernel_saliency, weighted
from onexn_plugins.repair.moments import Moments, step_of
from onexn_plugins.repair.offsets import has_offset
from onexn_plugins.repair.plan import Budget, share_ratios
from onexn_plugins.repair.sequential import correct_layers
from onexn_plugins.repair.statistics import reestimate_norms, scale_outputs
from onexn_plugins.repair.surroundings import surroundings
from onexn_plugins.repair.survey import layer_moments, survey
from onexn_plugins.repair.work import Work, restore, values
from onexn_plugins.selection import keep_highest


def arrange(work: Work, wanted: bool, ratio: Any) -> None:
    """Move channels by what their kernels are worth on these images."""
    if work.resume.reached("arranged"):
        saved = dict(work.resume.values["arranged"])
        work.importance = saved.pop("importance")
        vars(work.result).update(saved)
        return
    if not work.gathered:
        work.weigh()
        if wanted:
            gather(work, ratio)
    work.resume.save(work.student, "arranged", {"importance": work.importance} | {
        key: getattr(work.result, key) for key in ("retained_before", "retained_after", "notes")})


def gather(work: Work, ratio: Any) -> None:
    """Rearrange the copy, the reference and what is known of their channels."""
    around = work.around = surroundings(
        work.student, work.example, {name: each.weight for name, each in work.layers.items()})
    saliency: dict[str, Tensor] = {}
    for name, moments in layer_moments(work.student, work.images, work.layers, around, work.context):
        layer = work.layers[name]
        work.report(len(saliency), len(around), f"saliency: {name}")
        saliency[name] = kernel_saliency(
            weighted(out_first(layer, layer.weight), work.importance.get(name)), _covariance(work, name, moments),
            groups_of(layer))
    done = rearrange_layers(
        work.student, work.example, {name: work.layers[name] for name in saliency}, block_size=work.block_size,
        pruning_ratio=_typical(ratio), seed=work.seed, saliency=saliency, progress=work.report)
    apply_moves(work.dense, done.moves)
    for name, order in done.permutations.items():
        if name in work.importance:
            work.importance[name] = work.importance[name][order]
    work.result.retained_before, work.result.retained_after = done.retained_before, done.retained_after
    notes = [f"{name} is not rearranged: {reason}" for name, reason in done.refused]
    work.result.notes += [note for note in notes if note not in work.result.notes]
    work.gathered = True


def remove(work: Work, ratio: Any) -> None:
    """Decide which blocks go, and take them out."""
    around = surroundings(work.student, work.example, {name: each.weight for name, each in work.layers.items()})
    work.around = around
    _note_missing(work)
    if work.resume.reached("removed"):
        work.keep = {name: keep.bool() for name, keep in work.resume.values["removed"]["keep"].items()}
        work.take(work.resume.values["removed"])
        work.whole = {name: work.dense.get_submodule(name).weight.detach() for name in work.keep}  # type: ignore
        return
    started = time.monotonic()
    ratio = _among(ratio, around)
    known = {name: Elimination(**each) for name, each in work.resume.values.get("surveyed", {}).items()}
    found = survey(work.student, work.images, work.layers, around, work.patterns, context=work.context,
                   known=known, progress=work.report, harm=not isinstance(ratio, dict), importance=work.importance,
                   finished=lambda name, each: work.resume.note(work.student, "surveyed", name, vars(each)))
    work.result.ratios = _ratios(work, found, ratio)
    work.whole = {name: layer.weight.detach().clone() for name, layer in work.layers.items()}
    for name, share in work.result.ratios.items():
        layer = work.layers[name]
        work.keep[name] = keep_highest(found.eliminations[name].scores, share)
        with torch.no_grad():
            mask = mask_for(layer, work.keep[name], work.patterns[name])
            layer.weight.mul_(mask.to(layer.weight.device))
    work.judge("blocks removed", started)
    work.save("removed", {"keep": work.keep, "ratios": work.result.ratios})


def correct(work: Work) -> None:
    """Fit what stays, layer by layer, and see whether other statistics of the batch norms serve better."""
    if work.resume.reached("corrected"):
        work.take(work.resume.values["corrected"])
        return
    started, before = time.monotonic(), values(work.student)
    for name in work.keep:  # damped towards the weights before the removal
        work.layers[name].weight.data.copy_(work.whole[name])
    correct_with_depthwise(work, work.keep, work.layers, work.patterns)
    work.judge("least squares", started, before)
    started, before = time.monotonic(), values(work.student)
    if scale_outputs(work.student, work.example, work.expected, work.outputs(work.student)):
        work.judge("scale of the outputs", started, before)
    started, before = time.monotonic(), values(work.student)
    if reestimate_norms(work.student, work.images.batches, work.context):
        work.judge("batch-norm statistics", started, before)
    work.save("corrected", {"ratios": work.result.ratios})


def correct_with_depthwise(work: Work, keep: Mapping[str, Tensor], layers: Mapping[str, PrunableLayer],
                           patterns: Mapping[str, BlockPattern]) -> None:
    """Fit these layers of the student, and the depthwise ones behind the first of them."""
    between: dict[str, Any] = {name: work.student.get_submodule(name) for name in work.depthwise}
    cut = {name: pattern_of(layer, 1, name) for name, layer in between.items()}
    every = {**{name: layers[name] for name in keep}, **between}
    around = surroundings(work.student, work.example, {name: layer.weight for name, layer in every.items()})
    order = list(around)
    order = order[min(order.index(name) for name in keep) :] if keep else []
    correct_layers(
        work.dense, work.student, work.images, every,
        {name: keep[name] if name in keep else torch.ones(cut[name].shape, dtype=torch.bool) for name in order},
        {name: around[name] for name in order}, {**patterns, **cut}, context=work.context, progress=work.report)


def distil(work: Work, minutes: float) -> None:
    """Train on the dense network's outputs."""
    if not minutes:
        return
    started, before = time.monotonic(), work.resume.values.get("undistilled") or values(work.student)
    state = Distillation(**work.resume.values.get("distilled", {}))
    work.resume.values["undistilled"] = before
    try:
        state = train(work.dense, work.student, work.images, work.keep, work.patterns, minutes, seed=work.seed,
                      context=work.context, state=state, progress=work.report,
                      paused=lambda state: work.resume.note(work.student, "distilled", None, state.state()))
    except DistillationError as error:  # the repair so far is good without it
        restore(work.student, before)
        for key in ("undistilled", "distilled"):
            work.resume.values.pop(key, None)
        work.result.notes.append(f"not distilled: {error.reason}")
        return
    work.resume.write(work.student)
    work.judge("distillation", started, before, seconds=state.seconds)


def _covariance(work: Work, name: str, moments: Moments) -> Tensor:
    """Of what a layer reads, as its elimination will see it."""
    return moments.statistics(has_offset(work.layers[name], work.around[name])).inputs


def _ratios(work: Work, found: Any, ratio: Any) -> dict[str, float]:
    if isinstance(ratio, Budget):
        return ratio.ratios(found, work.student, work.layers, work.example, work.block_size)
    if isinstance(ratio, dict):
        return ratio
    macs = {layer.name: layer.dense_macs or 0
            for layer in measure(work.student, work.block_size, work.example).layers}
    return share_ratios(found, work.layers, macs, ratio, work.block_size)


def _note_missing(work: Work) -> None:
    fitting = room(list(work.around.values()), networks=2)
    if fitting < work.images.count:
        work.result.notes.append(f"{max(1, fitting)} of {work.images.count} images are fitted on where feature maps "
                                 "are largest, more behind: what is held of all does not fit into the memory allowed")
    for name in work.names:
        if name not in work.around:
            work.result.notes.append(f"{name} stays dense: forward does not compute it")
            continue
        around, layer = work.around[name], work.layers[name]
        step = step_of(around.size, work.images.count, fan_in(layer))
        looked_at = work.images.count
        for side in around.size:
            looked_at *= -(-side // step)
        reads = fan_in(layer)
        if looked_at < reads:
            work.result.notes.append(f"{name} reads {reads} values and is fitted on {looked_at} "
                                     "samples, damped towards its old weights: more images would serve it better")


def _typical(ratio: Any) -> float:
    """The ratio that channels are arranged for."""
    if isinstance(ratio, dict):
        return sum(ratio.values()) / max(1, len(ratio))
    return 0.5 if isinstance(ratio, Budget) else ratio


def _among(ratio: Any, around: Mapping[str, Any]) -> Any:
    return {name: share for name, share in ratio.items() if name in around} if isinstance(ratio, dict) else ratio
