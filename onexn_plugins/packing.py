"""Nested Python values as JSON text plus named tensors, and masks as bits: what a checkpoint is made of."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onexn_plugins.errors import OneXNError


def pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON types; its tensors go into `tensors` under names that start with `name`.

    None, bool, int, float, str, lists, tuples, dicts with any of these as keys, and tensors come back as they were.

    Raises:
        OneXNError: it holds anything else.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [pack(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]}
    if isinstance(value, dict):
        return {"dict": [[pack(key, f"{name}.key", tensors), pack(item, f"{name}.{key}", tensors)]
                         for key, item in value.items()]}
    raise OneXNError(name, f"a {type(value).__name__} cannot be saved",
                     "Save numbers, strings, tensors, and lists, tuples or dicts of them")


def unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    """The value that `pack` was given."""
    if not isinstance(packed, dict):
        return packed
    (kind, content), = packed.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {unpack(key, tensors): unpack(item, tensors) for key, item in content}
    items = [unpack(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def to_json(value: Any) -> str:
    """Compact JSON, the same text for the same value."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def pack_bits(keep: Tensor) -> Tensor:
    """bool of any shape -> uint8 [ceil(elements / 8)], in row-major order."""
    return torch.from_numpy(np.packbits(keep.detach().cpu().numpy().reshape(-1)))


def unpack_bits(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """uint8 [ceil(elements / 8)] -> bool of `shape`.

    Raises:
        ValueError: the number of bits does not fit the shape.
    """
    elements = int(np.prod(shape))
    if bits.dtype != torch.uint8 or bits.dim() != 1 or len(bits) != -(-elements // 8):
        raise ValueError(f"{tuple(bits.shape)} bytes of {bits.dtype} are no mask of shape {shape}")
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=elements)).reshape(shape).bool()
