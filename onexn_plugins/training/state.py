"""The state of a run in one file, whole or absent, from which the run goes on as if nothing had happened."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.files import written_aside

FORMAT, VERSION = "onexn-training", 2


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings, lists and dicts.

    Raises:
        OneXNError: the folder cannot be written, or the disk is full; an older file is then as it was.
    """
    content = io.BytesIO()  # torch's own writer reports a full disk as an internal error
    torch.save({"format": FORMAT, "version": VERSION, **state}, content)
    with written_aside(path) as aside:
        aside.write_bytes(content.getbuffer())


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU.

    Raises:
        OneXNError: no such file, or another kind of file.
    """
    if not path.is_file():
        raise OneXNError(str(path), "there is no such file", "Give a checkpoint that training wrote")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise OneXNError(str(path), f"cannot be read as the state of a run: {first_line(error)}",
                         "Give a checkpoint that training wrote, or start anew in another folder") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or state.get("version") != VERSION:
        raise OneXNError(str(path), f"is no state of a run of version {VERSION}",
                         "Give a checkpoint that training wrote; weights alone are a start, not a run to go on with")
    return state


def load_model_state(model: nn.Module, state: Mapping[str, Any], path: str) -> None:
    """The model's part, strictly, checked before anything changes."""
    check_network(shapes(model.state_dict()), shapes(state), path)
    model.load_state_dict(state)


def shapes(state: Mapping[str, Any]) -> dict[str, list[int]]:
    """Of all tensors, by name."""
    return {name: list(value.shape) for name, value in state.items() if isinstance(value, torch.Tensor)}


def check_network(mine: Mapping[str, list[int]], saved: Mapping[str, list[int]], path: str) -> None:
    """Raise OneXNError unless names and shapes are equal."""
    differing = sorted(name for name in {**mine, **saved} if mine.get(name) != saved.get(name))
    if differing:
        raise OneXNError(path, f"is of another network: {differing[0]!r} and {len(differing) - 1} more differ",
                         "Go on with the same network and method, or train into another folder")


def random_state() -> dict[str, Any]:
    """Every random stream of this process that training may draw from, as plain values."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "python": _plain(random.getstate()),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    random.setstate(_tuples(state["python"]))


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
