"""A pruned model in one safetensors file: weights, masks as bits, and whatever else a run needs to go on.

    save_checkpoint(model, "run.safetensors", pruner=pruner.state_dict(), optimizer=optimizer.state_dict(), epoch=3)
    meta = load_checkpoint(fresh_model, "run.safetensors")

The file holds the dense weights, also those behind the masks, so that pruning goes on exactly where it stopped. Its
tensors are named weights/<state dict key>, masks/<layer> (bit-packed, row-major [block_rows, in / groups]) and
meta/...; the metadata has one key, "onexn", whose JSON text says the rest. A SHA-256 over all of it is checked on
loading, before anything changes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.files import check_writable, written_aside
from onexn_plugins.layers import weighted_layers
from onexn_plugins.masking import attach, check_attachable, masks
from onexn_plugins.packing import pack, pack_bits, to_json, unpack, unpack_bits
from onexn_plugins.pattern import BlockPattern

FORMAT, VERSION, KEY = "onexn-checkpoint", 1, "onexn"


class SavedMask(NamedTuple):
    """A layer's mask as the file holds it."""

    keep: Tensor
    block_size: int
    straight_through: bool


def save_checkpoint(model: nn.Module, path: str | os.PathLike[str], **meta: Any) -> str:
    """Write the model with its masks, written aside and then renamed.

    Args:
        model: masked, folded or dense.
        path: of the file, overwritten if it exists.
        meta: anything made of numbers, strings, tensors, lists, tuples and dicts: the pruner's state, the
            optimizer's, the epoch, permutations; `load_checkpoint` returns it.

    Returns:
        The path.

    Raises:
        OneXNError: something cannot be saved, or the file cannot be written.
    """
    from safetensors.torch import save_file

    path = check_writable(path)
    tensors: dict[str, Tensor] = {}
    for key, value in dense_state(model).items():
        if not isinstance(value, Tensor):
            raise OneXNError(key, "its extra state is no tensor", "Save it yourself, beside the checkpoint")
        pack(value, f"weights/{key}", tensors)
    about = {}
    for name, mask in masks(model).items():
        tensors[f"masks/{name}"] = pack_bits(mask.keep)
        about[name] = {"block_size": mask.pattern.block_size, "straight_through": mask.straight_through}
    text = to_json({"format": FORMAT, "version": VERSION, "masks": about, "meta": pack(meta, "meta", tensors)})
    metadata = {KEY: to_json({"content": text, "sha256": _checksum(tensors, text)})}
    with written_aside(path) as aside:
        save_file(tensors, aside, metadata)
    return str(path)


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Give a model the weights and masks of a checkpoint, in place: parameters stay the objects they are.

    To resume training, construct the optimizer before loading, as in the run that saved, and then load its state.

    Args:
        model: freshly built, or the one that was saved; its masks are updated.
        path: written by `save_checkpoint`.

    Returns:
        The meta that was saved.

    Raises:
        OneXNError: the file is missing, cut, damaged or of another version, or does not fit the model, which is
            unchanged then.
    """
    tensors, content = _read(str(path))
    state = {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}
    _check_state(dense_state(model), state, str(path))
    saved = _saved_masks(model, tensors, content["masks"], str(path))
    meta = unpack(content["meta"], tensors)
    layers = weighted_layers(model)
    for name, mask in saved.items():
        attach(layers[name], mask.keep, mask.block_size, name, straight_through=mask.straight_through)
    with torch.no_grad():
        for key, value in dense_state(model).items():
            value.copy_(state[key])
    return meta


def dense_state(model: nn.Module) -> dict[str, Any]:
    """The model's state_dict as if it had no block masks: the weights behind them, under their ordinary names."""
    masked = masks(model)
    inner = {f"{name}.parametrizations.weight.original": f"{name}.weight" for name in masked}
    own = {f"{name}.parametrizations.weight.{index}.keep" for name in masked
           for index in range(len(model.get_submodule(name).parametrizations.weight))}  # type: ignore[union-attr,arg-type]
    return {inner.get(key, key): value for key, value in model.state_dict().items() if key not in own}


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
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _check_state(expected: Mapping[str, Any], found: Mapping[str, Tensor], path: str) -> None:
    """Raise OneXNError unless the file's weights are those of this model: names, shapes and dtypes."""
    wrong = [(key, "is missing in the file") for key in expected if key not in found]
    wrong += [(key, "is not in the model") for key in found if key not in expected]
    wrong += [(key, f"is {found[key].dtype} {tuple(found[key].shape)} in the file and {value.dtype} "
                    f"{tuple(value.shape)} in the model")
              for key, value in expected.items()
              if key in found and (found[key].shape != value.shape or found[key].dtype != value.dtype)]
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
    _check_names(set(about) - set(layers), f"is masked in {path}, but is no Conv2d or Linear of the model",
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
