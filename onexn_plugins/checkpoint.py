"""A pruned model in one safetensors file: weights, masks as bits, permutations, and what else a run needs to go on.

    save_checkpoint(model, "run.safetensors", pruner=pruner.state_dict(), optimizer=optimizer.state_dict(), epoch=3)
    meta = load_checkpoint(fresh_model, "run.safetensors")

The file holds the dense weights, also those behind the masks, so that pruning goes on exactly where it stopped, and the
moves of every rearrangement the model went through. Without weights it is small and replays the moves and the masks on
a model with the weights that the run started from:

    save_checkpoint(model, "recipe.safetensors", weights=False)
    load_checkpoint(pretrained_model, "recipe.safetensors")

Its tensors are named weights/<state dict key>, masks/<layer> (bit-packed, row-major [block_rows, in / groups]),
permutations... and meta...; the metadata has one key, "onexn", whose JSON text says the rest. A SHA-256 over all of it
is checked on loading, before anything changes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from onexn_plugins.errors import OneXNError
from onexn_plugins.files import check_writable, written_aside
from onexn_plugins.layers import weighted_layers
from onexn_plugins.masking import attach, check_attachable, masks
from onexn_plugins.packing import pack, pack_bits, to_json, unpack, unpack_bits
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.rearrangement.applied import (
    applied_moves,
    moves_from_plain,
    moves_of,
    moves_to_plain,
    remember,
    same_moves,
)
from onexn_plugins.rearrangement.apply import Move, move_tensors
from onexn_plugins.rearrangement.spaces import check_members, named_tensors

FORMAT, VERSION, KEY = "onexn-checkpoint", 2, "onexn"


class SavedMask(NamedTuple):
    """A layer's mask as the file holds it."""

    keep: Tensor
    block_size: int
    straight_through: bool


def save_checkpoint(model: nn.Module, path: str | os.PathLike[str], *, weights: bool = True, **meta: Any) -> str:
    """Write the model with its masks and the moves it went through, written aside and then renamed.

    Args:
        model: masked, folded or dense.
        path: of the file, overwritten if it exists.
        weights: False: leave them out. The file then fits a model with the weights of before the rearrangement, which
            must not have been trained since.
        meta: anything made of numbers, strings, tensors, lists, tuples and dicts: the pruner's state, the
            optimizer's, the epoch; `load_checkpoint` returns it.

    Returns:
        The path.

    Raises:
        OneXNError: something cannot be saved, or the file cannot be written.
    """
    from safetensors.torch import save_file

    state = _tensor_state(model)
    if not isinstance(weights, bool):
        raise OneXNError("weights", f"must be True or False, got {type(weights).__name__}",
                         "Give what you want to save another name")
    path = check_writable(path)
    tensors: dict[str, Tensor] = {}
    for key, value in state.items() if weights else ():
        pack(value, f"weights/{key}", tensors)
    about = {}
    for name, mask in masks(model).items():
        tensors[f"masks/{name}"] = pack_bits(mask.keep)
        about[name] = {"block_size": mask.pattern.block_size, "straight_through": mask.straight_through}
    replay = None if weights else {"state": _described(state), "sha256": _checksum(state, "")}
    moves = pack(moves_to_plain(fitting_moves(model)), "permutations", tensors)
    text = to_json({"format": FORMAT, "version": VERSION, "masks": about, "moves": moves, "replay": replay,
                    "meta": pack(meta, "meta", tensors)})
    metadata = {KEY: to_json({"content": text, "sha256": _checksum(tensors, text)})}
    with written_aside(path) as aside:
        save_file(tensors, aside, metadata)
    return str(path)


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Give a model the weights and masks of a checkpoint, in place: parameters stay the objects they are.

    To resume training, construct the optimizer before loading, as in the run that saved, and then load its state.
    Where the file holds no weights, its moves and masks are replayed on the model's own.

    Args:
        model: freshly built, or the one that was saved; its masks are updated. What is no part of its state_dict but
            carries channels follows the file's rearrangements.
        path: written by `save_checkpoint`.

    Returns:
        The meta that was saved.

    Raises:
        OneXNError: the file is missing, cut, damaged or of another version, or does not fit the model, which is
            unchanged then.
    """
    own = _tensor_state(model)
    tensors, content = _read(str(path))
    replay = content["replay"]
    state = {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}
    _check_state(_described(own), replay["state"] if replay else _described(state), str(path))
    saved = _saved_masks(model, tensors, content["masks"], str(path))
    meta, moves = unpack(content["meta"], tensors), moves_from_plain(unpack(content["moves"], tensors))
    _follow_moves(model, moves, replay, str(path))
    layers = weighted_layers(model)
    for name, mask in saved.items():
        attach(layers[name], mask.keep, mask.block_size, name, straight_through=mask.straight_through)
    with torch.no_grad():
        for key, value in dense_state(model).items() if not replay else ():
            value.copy_(state[key])
    return meta


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Did `save_checkpoint` write this file, as far as its metadata tell?"""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return False


def fitting_moves(model: nn.Module) -> list[Move]:
    """The moves the model went through; none where channels were removed since, so that they fit no more."""
    moves, tensors = applied_moves(model), _dense_tensors(model)
    try:
        for move in moves:
            check_members(tensors, [move.space])
    except OneXNError:
        return []
    return moves


def _follow_moves(model: nn.Module, moves: list[Move], replay: Mapping[str, Any] | None, path: str) -> None:
    """Take the model from the moves it went through to those of the file.

    With weights in the file, only tensors that are no part of the state have to move.

    Raises:
        OneXNError: they do not fit, or lead to other weights than the saved ones; the model is unchanged then.
    """
    before, tensors = fitting_moves(model), _dense_tensors(model)
    for move in moves:
        check_members(tensors, [move.space])
    if replay is None:
        stored = dense_state(model)
        tensors = {name: tensor for name, tensor in tensors.items() if name not in stored}
    way = [] if same_moves(before, moves) else [*(move.inverse() for move in reversed(before)), *moves]
    way = moves_of(tensors, way)
    move_tensors(tensors, way)
    if replay is not None and _checksum(dense_state(model), "") != replay["sha256"]:
        move_tensors(tensors, [move.inverse() for move in reversed(way)])
        raise OneXNError(path, "holds no weights, and those of the model do not lead to the ones that were saved",
                         "Load it into the weights the run started from; after training, save with weights=True")
    remember(model, moves)


def _dense_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, the weights behind masks by their ordinary names."""
    return _without_masks(model, named_tensors(model))


def dense_state(model: nn.Module) -> dict[str, Any]:
    """The model's state_dict as if it had no block masks: the weights behind them, under their ordinary names."""
    return _without_masks(model, model.state_dict())


def _tensor_state(model: nn.Module) -> dict[str, Tensor]:
    """The same; OneXNError unless the model is one, and everything in its state a tensor with values."""
    if not isinstance(model, nn.Module):
        raise OneXNError("model", f"must be a torch module, got {type(model).__name__}", "Pass the model itself")
    state = dense_state(model)
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise OneXNError(key, "its extra state is no tensor", "Save it yourself, beside the checkpoint")
        if is_lazy(value) or value.is_meta:
            raise OneXNError(key, "has no values yet", "Run the model once, or build it on a device")
    return state


def _without_masks(model: nn.Module, named: Mapping[str, Any]) -> dict[str, Any]:
    masked = masks(model)
    inner = {f"{name}.parametrizations.weight.original": f"{name}.weight" for name in masked}
    own = {f"{name}.parametrizations.weight.{index}.{buffer}" for name in masked for buffer in ("keep", "mask")
           for index in range(len(model.get_submodule(name).parametrizations.weight))}  # type: ignore[union-attr,arg-type]
    return {inner.get(key, key): value for key, value in named.items() if key not in own}


def _read(path: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors and the content of a file that is whole and ours."""
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        raise OneXNError(path, "there is no such file", "Check the path of the checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise OneXNError(path, f"is no whole safetensors file: {error}", "Save or copy the checkpoint again") from error
    if KEY not in metadata:
        raise OneXNError(path, "is a safetensors file, but no checkpoint of onexn_plugins",
                         "Load plain weights with safetensors.torch.load_model")
    try:
        sealed = json.loads(metadata[KEY])
        text, checksum = sealed["content"], sealed["sha256"]
        content = json.loads(text)
    except (ValueError, KeyError, TypeError) as error:
        raise OneXNError(path, "is damaged: its metadata cannot be read", "Save or copy it again") from error
    if checksum != _checksum(tensors, text):
        raise OneXNError(path, "is damaged: its content does not match its checksum", "Save or copy it again")
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise OneXNError(path, f"is of format {content.get('format')}, version {content.get('version')}, not {FORMAT} "
                         f"{VERSION}", "Load it with the version of onexn-plugins that wrote it")
    return tensors, content


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _described(state: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    """Key -> dtype and shape, as JSON gives them back."""
    return {key: [str(value.dtype), list(value.shape)] for key, value in state.items()}


def _check_state(expected: Mapping[str, list[Any]], found: Mapping[str, list[Any]], path: str) -> None:
    """Raise OneXNError unless the file's weights are those of this model: names, shapes and dtypes."""
    wrong = [(key, "is missing in the file") for key in expected if key not in found]
    wrong += [(key, "is not in the model") for key in found if key not in expected]
    wrong += [(key, f"is {found[key][0]} {found[key][1]} in the file and {value[0]} {value[1]} in the model")
              for key, value in expected.items() if key in found and found[key] != value]
    if wrong:
        listed = "; ".join(f"{key} {reason}" for key, reason in wrong[:3])
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise OneXNError(path, f"holds another model: {listed}{more}", "Build the model that was saved, then load")


def _saved_masks(
    model: nn.Module, tensors: Mapping[str, Tensor], about: Mapping[str, Any], path: str
) -> dict[str, SavedMask]:
    """The file's masks, every one known to fit its layer."""
    layers = weighted_layers(model)
    _check_names(set(masks(model)) - set(about), f"carries a mask that {path} has not", "Load into a fresh model")
    _check_names(set(about) - set(layers), f"is masked in {path}, but has no blocks in the model",
                 "Build the model that was saved, then load")
    saved = {}
    for name, entry in about.items():
        pattern: BlockPattern = check_attachable(layers[name], entry["block_size"], name)
        try:
            keep = unpack_bits(tensors[f"masks/{name}"], pattern.shape)
        except (KeyError, ValueError) as error:
            raise OneXNError(name, f"its mask in {path} does not fit: {error}", "Build the saved model") from error
        saved[name] = SavedMask(keep, entry["block_size"], entry["straight_through"])
    return saved


def _check_names(names: Iterable[str], reason: str, fix: str) -> None:
    names = sorted(names)
    if names:
        raise OneXNError(", ".join(names), reason, fix)
