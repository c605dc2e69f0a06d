"""Teaches the pruned network the dense one's outputs on the same unlabelled images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.inputs import call_model
from onexn_plugins.layers import mask_for, weighted_layers
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.repair.divergence import loss
from onexn_plugins.repair.images import Images

# The step relative to the size of what each tensor holds: layers with a folded or a weak norm differ by orders of
# magnitude, and a step that suits one destroys another.
RATE = 1e-3
WARM = 0.05  # share of the steps in which the rate rises; then it falls along a cosine
BATCH = 32
STEPS_TIMED = 3
CROPS = (0.35, 1.0)  # share of an image's area that a crop shows
SIDE = 160 / 224  # of the images' side that crops are scaled to: half the work, and other views than before


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
           state: Distillation | None = None, steps: int | None = None,
           progress: Callable[[int, int, str], None] | None = None,
           paused: Callable[[Distillation], None] | None = None) -> Distillation:
    """Train `pruned` in place for so many minutes; removed blocks stay removed, batch norms keep their statistics.

    Args:
        dense: the teacher, in evaluation mode.
        pruned: the student; its parameters' requires_grad is as before at the end.
        images: batches of images [n, c, h, w] are cropped and flipped at random; others are taken as they are.
        keep: layer -> bool [block_rows, in / groups].
        patterns: layer -> its blocks.
        minutes: of wall-clock time, unless `steps` says how far to go.
        seed: of the order and the crops: step i sees the same in every run.
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
    parameters = [each for each in pruned.parameters() if each.is_floating_point()]
    before = [each.requires_grad for each in parameters]
    pruned.eval()
    sides = _sides(dense, images)
    optimizer = torch.optim.Adam([{"params": [each], "size": _size(each)} for each in parameters], lr=RATE,
                                 betas=(0.9, 0.99))
    try:
        for each in parameters:
            each.requires_grad_(True)
        if state.optimizer is not None:
            optimizer.load_state_dict(state.optimizer)
        state.steps = state.steps or steps or 0
        started = time.monotonic() - state.seconds
        while not state.steps or state.step < state.steps:
            for group in optimizer.param_groups:
                group["lr"] = group["size"] * RATE * _schedule(state.step, state.steps)
            try:
                _train(dense, pruned, _batch(images, state.step, seed, sides), optimizer, parameters, masks)
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
        for each, flag in zip(parameters, before, strict=True):
            each.requires_grad_(flag)
            each.grad = None
    return state


def _train(dense: nn.Module, pruned: nn.Module, batch: Any, optimizer: torch.optim.Optimizer,
           parameters: Sequence[Tensor], masks: Mapping[str, Tensor]) -> None:
    taught = call_model(dense, batch)
    with torch.enable_grad():
        given = pruned(**batch) if isinstance(batch, dict) else pruned(*batch) if isinstance(batch, (list, tuple)) \
            else pruned(batch)
        optimizer.zero_grad()
        loss(taught, given).backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    with torch.no_grad():
        for name, mask in masks.items():
            pruned.get_submodule(name).weight.mul_(mask)  # type: ignore[operator,union-attr]


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


def _are_maps(images: Images) -> bool:
    return all(isinstance(batch, Tensor) and batch.dim() == 4 for batch in images.batches)


def _sides(dense: nn.Module, images: Images) -> list[int]:
    """Height and width that crops are scaled to: smaller ones where the network takes them, else the images' own."""
    if not _are_maps(images):
        return []
    whole = list(images.batches[0].shape[2:])
    smaller = [max(1, round(side * SIDE / 32) * 32) if side >= 64 else side for side in whole]
    if smaller == whole:
        return whole
    try:
        call_model(dense, F.interpolate(images.batches[0][:1], smaller))
    except OneXNError:  # a head or position embeddings of one size
        return whole
    return smaller


def _batch(images: Images, step: int, seed: int, sides: list[int]) -> Any:
    """What step number `step` sees."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    if not _are_maps(images):
        return images.batches[int(torch.randint(len(images.batches), (), generator=generator))]
    per_epoch = max(1, images.count // BATCH)
    order = torch.randperm(images.count, generator=torch.Generator().manual_seed(seed * 7919 + step // per_epoch))
    chosen = order[step % per_epoch * BATCH :][:BATCH].tolist()
    return torch.stack([_crop(_image(images, place), generator, sides) for place in chosen])


def _image(images: Images, place: int) -> Tensor:
    for batch in images.batches:
        if place < len(batch):
            return batch[place]
        place -= len(batch)
    raise IndexError(place)


def _crop(image: Tensor, generator: torch.Generator, sides: list[int]) -> Tensor:
    """A random part of an image [c, h, w], scaled to these sides and flipped half of the time."""
    def draw() -> float:
        return float(torch.rand((), generator=generator))

    height, width = image.shape[1:]
    area, ratio = CROPS[0] + (CROPS[1] - CROPS[0]) * draw(), math.exp((draw() - 0.5) * 2 * math.log(4 / 3))
    tall, wide = (max(1, min(size, round(size * math.sqrt(area * each))))
                  for size, each in ((height, 1 / ratio), (width, ratio)))
    top, left = int(draw() * (height - tall + 1)), int(draw() * (width - wide + 1))
    part = image[None, :, top : top + tall, left : left + wide]
    part = F.interpolate(part, sides, mode="bilinear", antialias=True)[0]
    return part.flip(2) if draw() < 0.5 else part
