"""Functions that only move data: they are replayed on the labels themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from onexn_plugins.rearrangement.tracing.facts import varying
from onexn_plugins.rearrangement.tracing.tracer import Call, Tracer, rule


@rule(*[
    "reshape", "permute", "transpose", "t", "flatten", "squeeze", "unsqueeze", "expand", "expand_as", "repeat",
    "tile", "narrow", "select", "flip", "fliplr", "flipud", "roll", "rot90", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "native_channel_shuffle", "movedim", "moveaxis", "swapaxes", "swapdims", "split", "chunk",
    "unbind", "tensor_split", "split_with_sizes", "hsplit", "vsplit", "dsplit", "repeat_interleave", "broadcast_to",
    "diagonal", "unsafe_chunk", "unsafe_split", "view", "view_as", "reshape_as", "unflatten", "unfold", "ravel",
    "atleast_1d", "atleast_2d", "atleast_3d", "__get__T", "__get__mT", "__get__H", "__get__mH", "__get__data",
    "__get__real",
])
def move(tracer: Tracer, call: Call) -> None:
    """One tensor comes in, its elements go out in other places."""
    source = call.args[0] if call.args else next(iter(call.kwargs.values()))
    if tracer.is_labelled(source):
        for tensor, labels in zip(call.results(), _replay(call, tracer.labels(source)), strict=True):
            tracer.label(tensor, labels)
        return
    origin = tracer.origin(source)
    if origin is not None:
        for tensor, index in zip(call.results(), _replay(call, origin[1]), strict=True):
            tracer.set_origin(tensor, origin[0], index)


@rule("contiguous", "clone", "detach", "detach_", "to", "float", "double", "half", "bfloat16", "type_as", "cpu", "cuda",
      "requires_grad_", "alias", "as_tensor", "view_as_real_", "lift_fresh", "positive", "__pos__", "_to_copy")
def same(tracer: Tracer, call: Call) -> None:
    """Every element stays where it is."""
    source = call.args[0] if call.args else next(iter(call.kwargs.values()))
    if tracer.is_labelled(source):
        tracer.label(call.result, tracer.labels(source))
        return
    origin = tracer.origin(source)
    if origin is not None and tracer.name_of(call.result) is None:
        tracer.set_origin(call.result, *origin)


@rule("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "row_stack", "column_stack")
def join(tracer: Tracer, call: Call) -> None:
    """Several tensors come in; constants and parameters among them never move."""
    parts = call.arg(0, "tensors")
    if not any(tracer.is_labelled(part) for part in parts):
        _fix(tracer, parts, f"is joined to others by {call.name}")
        return
    _fix(tracer, [part for part in parts if not tracer.is_labelled(part)], f"is joined to channels by {call.name}")
    labels = [tracer.labels(part) for part in parts]
    rest = {key: value for key, value in call.kwargs.items() if key not in ("tensors", "out")}
    tracer.label(call.result, call.function(labels, *call.args[1:], **rest))


@rule("__getitem__", "index_select", "gather", "take_along_dim")
def index(tracer: Tracer, call: Call) -> None:
    """Elements are picked by an index, which must not itself depend on channels."""
    source, *indices = call.args
    computed = [each for each in call.tensors() if each is not source and tracer.is_labelled(each)]
    if computed:
        _pick(tracer, call, source, computed)
        return
    if tracer.is_labelled(source):
        tracer.label(call.result, call.function(tracer.labels(source), *_on_cpu(indices), **_on_cpu(call.kwargs)))
        return
    origin = tracer.origin(source)
    if origin is not None:
        tracer.set_origin(call.result, origin[0], call.function(origin[1], *_on_cpu(indices), **_on_cpu(call.kwargs)))


def _pick(tracer: Tracer, call: Call, source: Tensor, indices: list[Tensor]) -> None:
    """Which elements are picked depends on the input: no channel of the source may move."""
    if any(each.dtype in (torch.bool, torch.uint8) for each in indices):
        tracer.decide(call.name)  # even how many are picked
    tracer.lose([source, *indices], call.results(), f"they are picked, or pick others, by value in {call.name}")


def _elementwise(tracer: Tracer, target: Tensor, indices: list[Tensor]) -> bool:
    """Is the index one mask that goes with the target element by element?"""
    return len(indices) == 1 and indices[0].shape == target.shape and tracer.is_labelled(target) and torch.equal(
        tracer.labels(indices[0]), tracer.labels(target))


@rule("__setitem__", "copy_")
def assign(tracer: Tracer, call: Call) -> None:
    """`target[index] = value`: what is written must move as the place does. Into a constant nothing may move."""
    target, value = call.args[0], call.args[-1]
    index = Call("", call.function, (call.args[1],), {}, None).tensors() if call.name == "__setitem__" else []
    computed = [each for each in index if tracer.is_labelled(each)]
    if computed and not _elementwise(tracer, target, computed):
        tracer.lose([target, *call.tensors()], [], f"they are written to places chosen by value in {call.name}")
    if not isinstance(value, Tensor):
        return
    reason = f"they are written into another tensor by {call.name}"
    if tracer.origin_name(target) is not None:
        _fix(tracer, [target], "is written to")
    if not tracer.is_labelled(target):
        tracer.facts.freeze(tracer.labels(value), reason)
        return
    place = tracer.labels(target)
    if call.name == "__setitem__":
        place = place[_on_cpu(call.args[1])]
    tracer.facts.unify(place, tracer.labels(value).expand(place.shape), reason)


@rule("pad")
def pad(tracer: Tracer, call: Call) -> None:
    """Padding along a channel dimension adds constants; along others every channel is padded alike."""
    labels, widths = tracer.labels(call.args[0]), call.arg(1, "pad")
    mode = call.arg(2, "mode", "constant")
    moving = varying(labels)
    core = labels
    padding: list[int] = []
    for dim in reversed(range(labels.dim())):
        pair = list(widths[len(padding) : len(padding) + 2]) or [0, 0]
        if dim not in moving:
            core, pair = core.narrow(dim, 0, min(1, labels.shape[dim])), [0, 0]
        padding += pair
    if mode != "constant" and any(padding):
        raise ValueError("channels are padded by their neighbours")
    tracer.label(call.result, F.pad(core.contiguous(), padding).expand(call.result.shape))


@rule(*[
    "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_ones",
    "new_empty", "new_full", "new_tensor", "shape_as_tensor",
])
def constant(tracer: Tracer, call: Call) -> None:
    """Only the shape of the argument counts; the result is a constant."""


def _replay(call: Call, labels: Tensor) -> list[Tensor]:
    """The call on labels (or element indices) in place of its first argument."""
    function, args = call.function, _on_cpu(call.args[1:])
    if call.name == "view":
        if any(isinstance(arg, torch.dtype) for arg in args):
            raise ValueError("bits are read as another dtype")
        function = Tensor.reshape  # labels are compact, so their strides may not allow a view
    elif call.name in ("unflatten", "view_as", "unfold"):
        labels = labels.contiguous()
    if call.name.startswith("__get__"):
        result = call.function(labels)
    else:
        kwargs = {key: value for key, value in call.kwargs.items() if key not in ("input", "out")}
        result = function(labels, *args, **_on_cpu(kwargs))
    return [result] if isinstance(result, Tensor) else list(result)


def _on_cpu(value: Any) -> Any:
    """Index tensors beside the labels, which live on the CPU."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return type(value)(_on_cpu(item) for item in value)
    return value


def _fix(tracer: Tracer, tensors: list[Tensor], reason: str) -> None:
    for tensor in tensors:
        name = tracer.origin_name(tensor)
        if name:
            tracer.facts.fix(name, f"it {reason}")
