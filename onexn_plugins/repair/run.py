"""repair(): prune a network and put it right again, from unlabelled images."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.inputs import call_model, map_tensors
from onexn_plugins.layers import PrunableLayer, groups_of
from onexn_plugins.measurement import measure
from onexn_plugins.pattern import BlockPattern, weight_mask
from onexn_plugins.rearrangement import applied_moves, apply_moves
from onexn_plugins.rearrangement.proof import clean_copy
from onexn_plugins.rearrangement.run import rearrange_layers
from onexn_plugins.repair.commit import commit
from onexn_plugins.repair.distillation import Distillation, distil
from onexn_plugins.repair.divergence import divergence
from onexn_plugins.repair.elimination import Elimination, kernel_saliency
from onexn_plugins.repair.images import Images, read_images
from onexn_plugins.repair.moments import step_of
from onexn_plugins.repair.options import Context, check_amount, check_ratios, layers_to_prune
from onexn_plugins.repair.plan import Budget, share_ratios
from onexn_plugins.repair.resume import Resume, fingerprint
from onexn_plugins.repair.sequential import correct_layers
from onexn_plugins.repair.statistics import reestimate_norms
from onexn_plugins.repair.surroundings import surroundings
from onexn_plugins.repair.survey import Progress, layer_moments, survey
from onexn_plugins.selection import keep_highest

JUDGES = 200  # calibration images that every step is judged on


@dataclass(frozen=True)
class Step:
    """What one step brought, on calibration images.

    Attributes:
        name: of the step.
        kl: divergence from the dense network's outputs (see `Divergence`).
        agreement: share of images whose first class is the dense network's; None where there are no classes.
        macs: multiply-adds that are left, of one forward pass on one image.
        seconds: it took.
        kept: False where it would have made things worse, and was taken back.
    """

    name: str
    kl: float
    agreement: float | None
    macs: int
    seconds: float
    kept: bool = True


@dataclass
class Repaired:
    """What `repair` did.

    Attributes:
        steps: in order.
        ratios: layer -> share of its blocks that went.
        images, skipped: how many calibrated, and files that could not be read, with the reason.
        notes: what else the caller should know, in sentences.
        retained_before, retained_after: fraction of L1 that pruning every layer alike would keep, before and after
            rearranging; None without it.
    """

    steps: list[Step] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    images: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    retained_before: float | None = None
    retained_after: float | None = None


def repair(model: nn.Module, images: Any, *, block_size: int = 4,
           pruning_ratio: float | Mapping[str, float] | Budget = 0.5, channels: float = 0.0, rearrange: bool = True,
           distil_minutes: float = 0, ignored_layers: Iterable[str | nn.Module] = (), full: bool | None = None,
           preprocess: Callable[[Any], Tensor] | None = None, seed: int = 0,
           checkpoint: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Repaired:
    """Prune a model in 1×N blocks and correct what stays, in place, from unlabelled images.

    Channels are rearranged, every layer's blocks eliminated on what the layer reads, ratios chosen by what each layer's
    loss does to the outputs, and the weights that stay fitted layer by layer to what the dense network gives. The masks
    are parametrizations, as the pruners attach them: they last through fine-tuning, and `fold` makes them zeros.

    Args:
        model: any eager model; mode, hooks, device, dtype, requires_grad and Parameter objects stay.
        images: a folder of photos, a tensor [n, ...], a DataLoader, or any iterable of what forward takes. A few
            hundred like those that the model will see. Labels are not used.
        block_size: N.
        pruning_ratio: the share of all blocks that goes, and at least of their multiply-adds, where it harms least; or
            {layer: share of its blocks}, in which layers that are not named stay dense; or a `Budget`.
        channels: reserved for whole hidden channels; 0 for blocks alone.
        rearrange: move channels first, so that blocks gather what matters.
        distil_minutes: train on the dense network's outputs afterwards, for so long.
        ignored_layers: names or modules that stay dense.
        full: Linear layers too. By default only where there is no convolution to prune.
        preprocess: from a PIL image to a tensor, for a folder; ImageNet's usual by default.
        seed: of the rearrangement's search and of the distillation. The same seed gives the same network.
        checkpoint: a file that is written on the way; a run with the same arguments goes on from it.
        progress: called as progress(done, total, what).

    Raises:
        OneXNError: bad arguments or images, a budget that cannot be met, activations that are not finite. The model is
            then as before, as it is after any other exception or an interruption.
    """
    layers = layers_to_prune(model, ignored_layers, full, block_size)
    ratio = pruning_ratio if isinstance(pruning_ratio, Budget) else check_ratios(pruning_ratio, layers)
    minutes = check_amount(distil_minutes, "distil_minutes")
    check_channels(channels)
    found = read_images(images, model, preprocess)
    settings = {"block_size": block_size, "ratio": str(ratio), "rearrange": rearrange, "minutes": minutes, "seed": seed,
                "layers": list(layers), "images": found.count}
    resume = Resume(checkpoint, fingerprint(model, settings) if checkpoint is not None else "")
    work = _Repair(model, found, list(layers), block_size, seed, resume, progress or (lambda done, total, what: None))
    work.arrange(rearrange, ratio)
    work.remove(ratio)
    work.correct()
    work.distil(minutes)
    commit(model, work.student, work.keep, block_size)
    return work.result


def check_channels(channels: Any) -> float:
    """The share of hidden channels; OneXNError unless it is a number from 0 to below 1."""
    return check_amount(channels, "channels")


class _Repair:
    """A copy of the model on its way; the model itself is changed at the very end.

    Attributes:
        student: the copy that is pruned.
        dense: what it should do.
        keep: layer -> bool [block_rows, in / groups].
        result: so far.
    """

    def __init__(self, model: nn.Module, images: Images, names: list[str], block_size: int, seed: int, resume: Resume,
                 progress: Progress) -> None:
        self.images, self.names, self.block_size, self.seed = images, names, block_size, seed
        self.report, self.resume = progress, resume
        self.student, self.dense = clean_copy(model).eval(), clean_copy(model).eval()
        self.keep: dict[str, Tensor] = {}
        self.result = Repaired(images=images.count, skipped=images.skipped)
        self.context = Context(model)
        self.example = _one(images.batches[0])
        self.judges = images.some(JUDGES)
        resume.load(self.student)
        if resume.stage:
            apply_moves(self.dense, applied_moves(self.student)[len(applied_moves(model)):])
        self._expected: list[Any] | None = None

    @property
    def layers(self) -> dict[str, PrunableLayer]:
        return {name: self.student.get_submodule(name) for name in self.names}  # type: ignore[misc]

    def arrange(self, wanted: bool, ratio: Any) -> None:
        """Move channels by what their kernels are worth on these images."""
        if self.resume.reached("arranged"):
            vars(self.result).update(self.resume.values["arranged"])
            return
        if wanted:
            around = surroundings(self.student, self.example, {name: each.weight for name, each in self.layers.items()})
            saliency: dict[str, Tensor] = {}
            for name, moments in layer_moments(self.student, self.images, self.layers, around, self.context):
                layer = self.layers[name]
                self.report(len(saliency), len(around), f"saliency: {name}")
                saliency[name] = kernel_saliency(layer.weight, moments.statistics().inputs, groups_of(layer))
            done = rearrange_layers(
                self.student, self.example, {name: self.layers[name] for name in saliency}, block_size=self.block_size,
                pruning_ratio=_typical(ratio), seed=self.seed, saliency=saliency, progress=self.report)
            self.dense = clean_copy(self.student)
            self.result.retained_before, self.result.retained_after = done.retained_before, done.retained_after
            self.result.notes += [f"{name} is not rearranged: {reason}" for name, reason in done.refused]
        self.resume.save(self.student, "arranged", {
            key: getattr(self.result, key) for key in ("retained_before", "retained_after", "notes")})

    def remove(self, ratio: Any) -> None:
        """Decide which blocks go, and take them out."""
        around = surroundings(self.student, self.example, {name: each.weight for name, each in self.layers.items()})
        self.around = around
        self._note_missing()
        if self.resume.reached("removed"):
            self.keep = {name: keep.bool() for name, keep in self.resume.values["removed"]["keep"].items()}
            self._take(self.resume.values["removed"])
            return
        started = time.monotonic()
        ratio = _among(ratio, around)
        known = {name: Elimination(**each) for name, each in self.resume.values.get("surveyed", {}).items()}
        found = survey(self.student, self.images, self.layers, around, self.block_size, context=self.context,
                       known=known, progress=self.report, harm=not isinstance(ratio, dict),
                       finished=lambda name, each: self.resume.note(self.student, "surveyed", name, vars(each)))
        self.result.ratios = self._ratios(found, ratio)
        for name, share in self.result.ratios.items():
            layer = self.layers[name]
            self.keep[name] = keep_highest(found.eliminations[name].scores, share)
            pattern = BlockPattern.of(layer.weight, self.block_size, groups_of(layer), name)
            with torch.no_grad():
                layer.weight.mul_(weight_mask(self.keep[name], pattern, layer.weight))
        self._judge("blocks removed", started)
        self._save("removed", {"keep": self.keep, "ratios": self.result.ratios})

    def correct(self) -> None:
        """Fit what stays, layer by layer, and see whether other statistics of the batch norms serve better."""
        if self.resume.reached("corrected"):
            self._take(self.resume.values["corrected"])
            return
        started, before = time.monotonic(), _values(self.student)
        for name in self.keep:  # damped towards the weights before the removal
            self.layers[name].weight.data.copy_(self.dense.get_submodule(name).weight)  # type: ignore[arg-type]
        correct_layers(self.dense, self.student, self.images, self.layers, self.keep,
                       {name: each for name, each in self.around.items() if name in self.keep}, self.block_size,
                       context=self.context, progress=self.report)
        self._judge("least squares", started, before)
        started, before = time.monotonic(), _values(self.student)
        if reestimate_norms(self.student, self.images.batches, self.context):
            self._judge("batch-norm statistics", started, before)
        self._save("corrected", {"ratios": self.result.ratios})

    def distil(self, minutes: float) -> None:
        """Train on the dense network's outputs."""
        if not minutes:
            return
        started, before = time.monotonic(), self.resume.values.get("undistilled") or _values(self.student)
        state = Distillation(**self.resume.values.get("distilled", {}))
        self.resume.values["undistilled"] = before
        patterns = {name: BlockPattern.of(self.layers[name].weight, self.block_size, groups_of(self.layers[name]), name)
                    for name in self.keep}
        state = distil(self.dense, self.student, self.images, self.keep, patterns, minutes, seed=self.seed, state=state,
                       progress=self.report,
                       paused=lambda state: self.resume.note(self.student, "distilled", None, state.state()))
        self._judge("distillation", started - 0.0, before, seconds=state.seconds)

    def _ratios(self, found: Any, ratio: Any) -> dict[str, float]:
        if isinstance(ratio, Budget):
            return ratio.ratios(found, self.student, self.layers, self.example, self.block_size)
        if isinstance(ratio, dict):
            return ratio
        macs = {layer.name: layer.dense_macs or 0
                for layer in measure(self.student, self.block_size, self.example).layers}
        return share_ratios(found, self.layers, macs, ratio, self.block_size)

    def _judge(self, name: str, started: float, before: Mapping[str, Tensor] | None = None,
               seconds: float | None = None) -> None:
        """Add a step to the result; where it made things worse, go back to the values before it."""
        seconds = time.monotonic() - started if seconds is None else seconds
        if self._expected is None:
            self._expected = self._outputs(self.dense)
        found = divergence(self._expected, self._outputs(self.student))
        macs = measure(self.student, self.block_size, self.example).macs or 0
        last = next((step for step in reversed(self.result.steps) if step.kept), None)
        kept = before is None or last is None or found.kl <= last.kl
        if not kept and before is not None:
            _restore(self.student, before)
        self.result.steps.append(Step(name, found.kl, found.agreement, macs, seconds, kept))

    def _outputs(self, model: nn.Module) -> list[Any]:
        with torch.no_grad(), self.context():
            return [map_tensors(_plain, call_model(model, batch)) for batch in self.judges]

    def _note_missing(self) -> None:
        for name in self.names:
            if name not in self.around:
                self.result.notes.append(f"{name} stays dense: forward does not compute it")
                continue
            around, layer = self.around[name], self.layers[name]
            step = step_of(around.size, self.images.count)
            looked_at = self.images.count
            for side in around.size:
                looked_at *= -(-side // step)
            if looked_at < layer.weight[0].numel():
                self.result.notes.append(f"{name} reads {layer.weight[0].numel()} values and is fitted on {looked_at} "
                                         "samples, damped towards its old weights: more images would serve it better")

    def _save(self, stage: str, values: dict[str, Any]) -> None:
        self.resume.save(self.student, stage, values | {
            "steps": [vars(step) for step in self.result.steps]})

    def _take(self, values: Mapping[str, Any]) -> None:
        self.result.ratios = dict(values["ratios"])
        self.result.steps = [Step(**step) for step in values["steps"]]


def _plain(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def _one(batch: Any) -> Any:
    """The first image of a batch."""
    return map_tensors(lambda each: each[:1] if each.dim() else each, batch)


def _typical(ratio: Any) -> float:
    """The ratio that channels are arranged for."""
    if isinstance(ratio, dict):
        return sum(ratio.values()) / max(1, len(ratio))
    return 0.5 if isinstance(ratio, Budget) else ratio


def _among(ratio: Any, around: Mapping[str, Any]) -> Any:
    return {name: share for name, share in ratio.items() if name in around} if isinstance(ratio, dict) else ratio


def _values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def _restore(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name in values:
                value.copy_(values[name])


