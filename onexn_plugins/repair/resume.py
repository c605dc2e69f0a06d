"""A repair that was interrupted goes on from its checkpoint."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from onexn_plugins.checkpoint import load_checkpoint, save_checkpoint
from onexn_plugins.errors import OneXNError
from onexn_plugins.files import check_writable
from onexn_plugins.inputs import tensors_in
from onexn_plugins.packing import to_json

STAGES = ("arranged", "removed", "corrected")
SECONDS = 30.0  # between two notes inside a stage


class Resume:
    """The checkpoint of one repair: the last finished stage, and how far the next one is.

    Attributes:
        stage: last one that was finished; empty at the beginning, and without a file.
        values: stage -> what it came to.
    """

    def __init__(self, path: str | os.PathLike[str] | None, mark: str) -> None:
        self.path: Path | None = None if path is None else check_writable(path)
        self.stage, self.values, self._mark, self._noted = "", dict[str, Any](), mark, time.monotonic()

    def load(self, model: nn.Module) -> None:
        """Give a fresh copy of the model what the file holds, if there is one.

        Raises:
            OneXNError: the file is damaged, or of another repair.
        """
        if self.path is None or not self.path.exists():
            return
        meta = load_checkpoint(model, self.path)
        if meta.get("repair", {}).get("mark") != self._mark:
            raise OneXNError(str(self.path), "is the checkpoint of another repair: other weights, images or settings",
                             "Repeat the call it is from, or remove the file")
        self.stage, self.values = meta["repair"]["stage"], meta["repair"]["values"]

    def reached(self, stage: str) -> bool:
        """Was this stage finished?"""
        return self.stage in STAGES[STAGES.index(stage) :]

    def save(self, model: nn.Module, stage: str, values: Mapping[str, Any]) -> None:
        """A stage is finished."""
        self.stage = stage
        self.values[stage] = dict(values)
        if stage != "arranged":
            self.values.pop("surveyed", None)
        self.write(model)

    def note(self, model: nn.Module, key: str, name: str | None, value: Mapping[str, Any]) -> None:
        """How far a stage is: one part of it by name, or all of it; written when the last note is old enough."""
        if self.path is None:
            return
        if name is None:
            self.values[key] = dict(value)
        else:
            self.values.setdefault(key, {})[name] = dict(value)
        if time.monotonic() - self._noted > SECONDS:
            self.write(model)

    def write(self, model: nn.Module) -> None:
        """The file as it should be now; nothing where none is wanted."""
        if self.path is not None:
            save_checkpoint(model, self.path, repair={"mark": self._mark, "stage": self.stage, "values": self.values})
            self._noted = time.monotonic()


def fingerprint(model: nn.Module, settings: Mapping[str, Any], images: Sequence[Any]) -> str:
    """Of the weights, settings and batches of images a repair starts from."""
    digest = hashlib.sha256(to_json(dict(settings)).encode())
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(name.encode())
            digest.update(_bytes(value))
    for value in tensors_in(list(images)):
        digest.update(repr(tuple(value.shape)).encode())
        digest.update(_bytes(value))
    return digest.hexdigest()[:24]


def _bytes(value: torch.Tensor) -> Any:
    return value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data if value.numel() else b""
