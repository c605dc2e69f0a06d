"""Teaches the pruned network the dense one's outputs and feature maps on the same unlabelled images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.inputs import call_model
from onexn_plugins.layers import is_depthwise, mask_for, weighted_layers
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.repair.divergence import loss, squared
from onexn_plugins.repair.features import Watched, difference, passed_on
from onexn_plugins.repair.images import Images
from onexn_plugins.repair.surroundings import surroundings
from onexn_plugins.repair.views import view

# The step relative to the size of what each tensor holds: layers with a folded or a weak norm differ by orders of
# magnitude, and a step that suits one destroys another.
RATE = 1e-3
WARM = 0.05  # share of the steps in which the rate rises; then it falls along a cosine
STEPS_TIMED = 3
# Weights of squared errors, in variances, against the divergence of the outputs, which looks at the classes that the
# images show: these look at all.
OUTPUTS, FEATURES = 3.0, 10.0


class DistillationError(OneXNError):
    """A step that could not be taken; what came before is of use without it."""


@dataclass
class Distillation:
    """A distillation that can be stopped and gone on with.

    Attributes:
        step, steps: done and in all; `steps` is known once the first ones were timed.
        seconds: spent so far.
    """

    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    optimizer: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "steps": self.steps, "seconds": self.seconds, "optimizer": self.optimizer}


def distil(dense: nn.Module, pruned: nn.Module, images: Images, keep: Mapping[str, Tensor],
           patterns: Mapping[str, BlockPattern], minutes: float, *, seed: int = 0,
           context: Callable[[], Any] = nullcontext, state: Distillation | None = None, steps: int | None = None,
           progress: Callable[[int, int, str], None] | None = None,
           paused: Callable[[Distillation], None] | None = None) -> Distillation:
    """Train `pruned` in place for so many minutes; removed blocks stay removed, batch norms keep their statistics.

    So do layers that lost nothing, but for depthwise ones, keep their weights: the classifier above all, which a few
    hundred images would bend to their own classes.

    Args:
        dense: the teacher, in evaluation mode.
        pruned: the student; its parameters' requires_grad is as before at the end.
        images: seen as `view` makes them.
        keep: layer -> bool [block_rows, in / groups].
        patterns: layer -> its blocks.
        minutes: of wall-clock time, unless `steps` says how far to go.
        seed: of the order and the views: step i sees the same in every run.
        context: in which both run.
        state: to go on from.
        steps: instead of minutes.
        progress: called as progress(done, total, what).
        paused: called after every step with the state so far, which it may save.

    Raises:
        DistillationError: the networks do not take a step on these images.
    """
    state = state or Distillation()
    layers = weighted_layers(pruned)
    masks = {name: mask_for(layers[name], keep[name], patterns[name]).to(layers[name].weight.device) for name in keep}
    whole = {id(parameter) for name, layer in layers.items() if name not in keep and not is_depthwise(layer)
             for parameter in layer.parameters()}
    everything = [each for each in pruned.parameters() if each.is_floating_point()]
    before = [each.requires_grad for each in everything]
    parameters = [each for each in everything if id(each) not in whole]
    watched = passed_on(surroundings(pruned, images.first, {name: layers[name].weight for name in keep}))
    pruned.eval()
    optimizer = torch.optim.Adam([{"params": [each], "size": _size(each)} for each in parameters], lr=RATE,
                                 betas=(0.9, 0.99))
    try:
        for each in everything:
            each.requires_grad_(id(each) not in whole)
        if state.optimizer is not None:
            optimizer.load_state_dict(state.optimizer)
        state.steps = state.steps or steps or 0
        started = time.monotonic() - state.seconds
        while not state.steps or state.step < state.steps:
            for group in optimizer.param_groups:
                group["lr"] = group["size"] * RATE * _schedule(state.step, state.steps)
            try:
                batch = view(images, state.step, seed)
                _error(dense, pruned, batch, watched, context).backward()
                _step(pruned, optimizer, masks)
            except Exception as error:  # whatever a user's forward or a device's backward raises
                raise DistillationError("distillation", f"step {state.step + 1} fails: {first_line(error)}",
                                        "Give images in batches that the network trains on") from error
            state.step += 1
            state.seconds = time.monotonic() - started
            if not state.steps and (state.step == STEPS_TIMED or state.seconds >= 60 * minutes):
                state.steps = _steps(minutes, state)
            if progress is not None:
                progress(state.step, state.steps or state.step + 1, "distillation")
            if paused is not None:
                state.optimizer = optimizer.state_dict()
                paused(state)
    finally:
        for each, flag in zip(everything, before, strict=True):
            each.requires_grad_(flag)
            each.grad = None
    return state


def _error(dense: nn.Module, pruned: nn.Module, batch: Any, watched: frozenset[int],
           context: Callable[[], Any]) -> Tensor:
    """How far the student's outputs and feature maps are from the teacher's, with gradients."""
    there, here = Watched(watched), Watched(watched)
    with context(), there:
        taught = call_model(dense, batch)
    with torch.enable_grad(), context(), here:
        given = pruned(**batch) if isinstance(batch, dict) else pruned(*batch) if isinstance(batch, (list, tuple)) \
            else pruned(batch)
    with torch.enable_grad():
        return (loss(taught, given) + OUTPUTS * squared(taught, given)
                + FEATURES * difference(there.kept, here.kept))


def _step(pruned: nn.Module, optimizer: torch.optim.Optimizer, masks: Mapping[str, Tensor]) -> None:
    """Train on the gradients that are there; weights of removed blocks have none, and stay zero."""
    for name, mask in masks.items():
        gradient = pruned.get_submodule(name).weight.grad
        if isinstance(gradient, Tensor):
            gradient.mul_(mask)
    torch.nn.utils.clip_grad_norm_([each for group in optimizer.param_groups for each in group["params"]], 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _steps(minutes: float, state: Distillation) -> int:
    """How many steps fit into so many minutes, by the time that the first ones took."""
    return max(state.step, int(60 * minutes / state.seconds * state.step))


def _size(parameter: Tensor) -> float:
    """Root mean square of what is not zero."""
    values = parameter.detach()[parameter.detach() != 0]
    return float(values.double().square().mean().sqrt()) if values.numel() else 1.0


def _schedule(step: int, steps: int) -> float:
    if not steps:
        return WARM
    return min(1.0, (step + 1) / max(1.0, WARM * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
