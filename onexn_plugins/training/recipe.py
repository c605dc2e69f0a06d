"""How a network is trained: every setting that changes the result, in one frozen object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from onexn_plugins.errors import OneXNError

SCHEDULES = ("step", "cos", "exp", "fixed", "onecycle")
PRECISIONS = ("32-true", "bf16-mixed", "64-true")
_POSITIVE = ("epochs", "batch_size", "eval_batch_size", "lr", "decay_epochs", "decay_factor")
_NOT_NEGATIVE = ("momentum", "weight_decay", "warmup_epochs", "label_smoothing", "seed")
# What may differ when a run goes on: it does not change what comes out.
_FREE = ("eval_batch_size",)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """SGD with momentum under a learning rate schedule.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step, over all processes together.
        eval_batch_size: held-out images at a time, per process.
        lr: the learning rate, for "onecycle" its peak.
        momentum, nesterov, weight_decay: of torch.optim.SGD.
        schedule: "cos" falls to zero along half a cosine; "step" and "exp" multiply by decay_factor every decay_epochs,
            "step" at once, "exp" smoothly; "fixed" stays; "onecycle" rises and falls (Smith and Topin 2018).
        decay_epochs, decay_factor: of "step" and "exp".
        warmup_epochs: the rate rises linearly this long; may be a fraction. Not for "onecycle", which has its own.
        label_smoothing: 0 to below 1 (Szegedy et al. 2016).
        precision: Lightning Fabric's word: "32-true", "bf16-mixed" or "64-true".
        channels_last: memory format; faster for every convolutional network tried on a CPU, and on tensor cores.
        seed: of the order of images, their augmentation, dropout and random pruning.
    """

    epochs: int
    batch_size: int = 256
    eval_batch_size: int = 256
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: str = "cos"
    decay_epochs: float = 30.0
    decay_factor: float = 0.1
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    precision: str = "32-true"
    channels_last: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, str(field.type), getattr(self, field.name))
        for name in _POSITIVE + _NOT_NEGATIVE:
            if getattr(self, name) < 0 or (name in _POSITIVE and not getattr(self, name)):
                raise OneXNError(name, f"must be {'positive' if name in _POSITIVE else 'at least 0'}, "
                                 f"got {getattr(self, name)!r}", "Give a number in that range")
        if self.label_smoothing >= 1 or self.momentum >= 1:
            name = "label_smoothing" if self.label_smoothing >= 1 else "momentum"
            raise OneXNError(name, f"must be below 1, got {getattr(self, name)!r}", "Usual are 0.1 and 0.9")
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_choice("precision", self.precision, PRECISIONS)
        if self.warmup_epochs >= self.epochs:
            raise OneXNError("warmup_epochs", f"leaves nothing of {self.epochs} epochs", "Warm up for less")
        if self.schedule == "onecycle" and self.warmup_epochs:
            raise OneXNError("warmup_epochs", "onecycle has a warm-up of its own", "Leave it at 0")

    def check_resumable(self, saved: Mapping[str, Any], path: str) -> None:
        """Raise OneXNError where a saved run was trained otherwise."""
        before, now = ({name: value for name, value in each.items() if name not in _FREE}
                       for each in (saved, asdict(self)))
        check_same(before, now, path)


def check_same(saved: Mapping[str, Any], mine: Mapping[str, Any], path: str) -> None:
    """Raise OneXNError where the settings of a saved run are not those of this one."""
    differing = [f"{name} was {saved.get(name)!r} and is {mine.get(name)!r}" for name in {**saved, **mine}
                 if name not in saved or name not in mine or saved[name] != mine[name]]
    if differing:
        raise OneXNError(path, f"is of another run: {'; '.join(differing)}",
                         "Go on with the same settings, or train into another folder")


def _check_type(name: str, kind: str, value: object) -> None:
    allowed: tuple[type, ...] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}[kind]
    if not isinstance(value, allowed) or (kind != "bool" and isinstance(value, bool)):
        raise OneXNError(name, f"must be {kind}, got {value!r}", "Give a value of that type")
    if isinstance(value, float) and not math.isfinite(value):
        raise OneXNError(name, f"must be finite, got {value!r}", "Give a finite number")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OneXNError(name, f"there is no {value!r}", f"Choose {', '.join(choices)}")
