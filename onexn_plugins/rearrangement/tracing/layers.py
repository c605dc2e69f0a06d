"""Functions that mix channels by a weight (convolutions, linear layers, products) and norms."""

from __future__ import annotations

import torch
from torch import Tensor

from onexn_plugins.rearrangement.tracing.facts import frozen, spread, varying
from onexn_plugins.rearrangement.tracing.pointwise import along, carry_channels, carry_elements
from onexn_plugins.rearrangement.tracing.tracer import Call, Tracer, rule


@rule("conv1d", "conv2d", "conv3d")
def convolution(tracer: Tracer, call: Call) -> None:
    """weight [out, in / groups, *kernel]."""
    spatial = int(call.name[4])
    groups = call.arg(6, "groups", 1)
    source, weight, bias = call.arg(0, "input"), call.arg(1, "weight"), call.arg(2, "bias")
    channel_dim = source.dim() - spatial - 1
    incoming = along(tracer, tracer.labels(source), channel_dim, call.name)
    name = _own_name(tracer, weight, incoming, call)
    if name is None:
        return
    if groups > 1 and groups == len(incoming):  # depthwise: every channel is filtered by itself
        outgoing = incoming.repeat_interleave(weight.shape[0] // groups)
        tracer.facts.carry(name, 0, outgoing)
    else:
        outgoing = _outgoing(tracer, name, weight.shape[0])
        tracer.facts.carry(name, 0, outgoing)
        tracer.facts.carry(name, 1, incoming, groups)
        _apart(tracer, groups, incoming, outgoing)
    carry_channels(tracer, bias, outgoing, call.name)
    tracer.label(call.result, spread(outgoing, call.result.shape, channel_dim))


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(tracer: Tracer, call: Call) -> None:
    """weight [in, out / groups, *kernel]."""
    spatial = int(call.name[14])
    groups = call.arg(6, "groups", 1)
    source, weight, bias = call.arg(0, "input"), call.arg(1, "weight"), call.arg(2, "bias")
    channel_dim = source.dim() - spatial - 1
    incoming = along(tracer, tracer.labels(source), channel_dim, call.name)
    name = _own_name(tracer, weight, incoming, call)
    if name is None:
        return
    tracer.facts.carry(name, 0, incoming)
    if groups > 1 and groups == len(incoming):  # depthwise
        outgoing = incoming.repeat_interleave(weight.shape[1])
    else:
        outgoing = _outgoing(tracer, name, weight.shape[1] * groups, dim=1)
        tracer.facts.carry(name, 1, outgoing, groups)
        _apart(tracer, groups, incoming, outgoing)
    carry_channels(tracer, bias, outgoing, call.name)
    tracer.label(call.result, spread(outgoing, call.result.shape, channel_dim))


@rule("linear")
def linear(tracer: Tracer, call: Call) -> None:
    """weight [out, in]."""
    source, weight, bias = call.arg(0, "input"), call.arg(1, "weight"), call.arg(2, "bias")
    incoming = along(tracer, tracer.labels(source), -1, call.name)
    name = _own_name(tracer, weight, incoming, call)
    if name is None:
        return
    outgoing = _outgoing(tracer, name, weight.shape[0])
    tracer.facts.carry(name, 0, outgoing)
    tracer.facts.carry(name, 1, incoming)
    carry_channels(tracer, bias, outgoing, call.name)
    tracer.label(call.result, spread(outgoing, call.result.shape, call.result.dim() - 1))


@rule("embedding")
def embedding(tracer: Tracer, call: Call) -> None:
    """weight [words, channels]; called as embedding(input, weight)."""
    weight = call.arg(1, "weight")
    name = _own_name(tracer, weight, torch.zeros(1, dtype=torch.int32), call)
    if name is None:
        return
    tracer.facts.carry(name, 0, frozen(weight.shape[:1]))  # the input says their numbers
    outgoing = _outgoing(tracer, name, weight.shape[1], dim=1)
    tracer.facts.carry(name, 1, outgoing)
    tracer.label(call.result, spread(outgoing, call.result.shape, call.result.dim() - 1))


@rule("batch_norm", "instance_norm")
def batch_norm(tracer: Tracer, call: Call) -> None:
    """(input, running_mean, running_var, weight, bias): one value per channel each."""
    source = call.arg(0, "input")
    channels = along(tracer, tracer.labels(source), 1, call.name)
    for position, name in enumerate(("running_mean", "running_var", "weight", "bias"), start=1):
        carry_channels(tracer, call.arg(position, name), channels, call.name)
    tracer.label(call.result, spread(channels, call.result.shape, 1))


@rule("group_norm")
def group_norm(tracer: Tracer, call: Call) -> None:
    """(input, num_groups, weight, bias): channels are normalised with those of their group."""
    source, groups = call.arg(0, "input"), call.arg(1, "num_groups")
    channels = along(tracer, tracer.labels(source), 1, call.name)
    tracer.facts.alike_within(channels, torch.arange(len(channels)) // (len(channels) // groups))
    for position, name in ((2, "weight"), (3, "bias")):
        carry_channels(tracer, call.arg(position, name), channels, call.name)
    tracer.label(call.result, spread(channels, call.result.shape, 1))


@rule("layer_norm", "rms_norm")
def layer_norm(tracer: Tracer, call: Call) -> None:
    """(input, normalized_shape, weight, bias): the last dimensions are normalised together."""
    labels = tracer.labels(call.arg(0, "input"))
    first = labels.dim() - len(call.arg(1, "normalized_shape"))
    moving = varying(labels)
    if any(dim >= first for dim in moving):
        tracer.facts.alike_within(torch.unique(labels))
        if any(dim < first for dim in moving):
            tracer.facts.freeze(labels, f"{call.name} mixes some of them")
    for position, name in ((2, "weight"), (3, "bias")):
        parameter = call.arg(position, name)
        if parameter is not None and any(dim >= first for dim in moving):
            _carry_elementwise(tracer, parameter, labels[(0,) * first], call.name)
    tracer.label(call.result, labels)


@rule("matmul", "__matmul__", "__rmatmul__", "bmm", "mm")
def product(tracer: Tracer, call: Call) -> None:
    """[..., rows, inner] × [..., inner, columns], with channels along one dimension of each factor at most."""
    left, right = call.args[:2] if call.name != "__rmatmul__" else reversed(call.args[:2])
    ours, theirs = tracer.labels(left), tracer.labels(right)
    name = tracer.name_of(right)
    if name is not None and right.dim() == 2 and tracer.is_labelled(left):
        _times_parameter(tracer, call, along(tracer, ours, -1, call.name), name)
        return
    reason = f"they meet something that does not move in {call.name}"
    dims = ours.dim(), theirs.dim()
    if min(dims) < 2 or not (tracer.is_labelled(left) and tracer.is_labelled(right)):
        raise ValueError("a product with a vector or a constant")
    result = call.result
    ours_move, theirs_move = [dim - dims[0] for dim in varying(ours)], [dim - dims[1] for dim in varying(theirs)]
    if ours_move in ([], [-1]) and theirs_move in ([], [-2]):
        tracer.facts.unify(along(tracer, ours, -1, call.name), along(tracer, theirs, -2, call.name), reason)
        tracer.label(result, frozen(result.shape))
    elif ours_move == [-2] and not bool(theirs.any()):
        tracer.label(result, spread(along(tracer, ours, -2, call.name), result.shape, result.dim() - 2))
    elif theirs_move == [-1] and not bool(ours.any()):
        tracer.label(result, spread(along(tracer, theirs, -1, call.name), result.shape, result.dim() - 1))
    else:
        raise ValueError("channels along several dimensions")


def _times_parameter(tracer: Tracer, call: Call, incoming: Tensor, name: str) -> None:
    """[..., in] × a parameter [in, out]: a linear layer whose weight lies the other way round."""
    outgoing = _outgoing(tracer, name, tracer.registered(name).shape[1], dim=1)
    tracer.facts.carry(name, 0, incoming)
    tracer.facts.carry(name, 1, outgoing)
    tracer.label(call.result, spread(outgoing, call.result.shape, call.result.dim() - 1))


def _apart(tracer: Tracer, groups: int, *channels: Tensor) -> None:
    """Channels of a grouped convolution are treated alike within their group."""
    for labels in channels if groups > 1 else ():
        tracer.facts.alike_within(labels, torch.arange(len(labels)) // (len(labels) // groups))


def _own_name(tracer: Tracer, weight: Tensor, incoming: Tensor, call: Call) -> str | None:
    """The weight's name; None, and the channels frozen, where it is no parameter itself (computed, a view)."""
    name = tracer.name_of(weight)
    if name is None:
        tracer.give_up(call, f"they meet a computed weight in {call.name}")
        tracer.facts.freeze(incoming, f"they meet a computed weight in {call.name}")
    return name


def _outgoing(tracer: Tracer, name: str, channels: int, dim: int = 0) -> Tensor:
    """Labels of a layer's output channels, which lie along `dim`: the same ones at every such use of its weight."""
    if (name, dim) not in tracer.output_labels:
        tracer.output_labels[name, dim] = tracer.facts.fresh(channels)
    return tracer.output_labels[name, dim]


def _carry_elementwise(tracer: Tracer, parameter: Tensor, labels: Tensor, function: str) -> None:
    origin = tracer.origin(parameter)
    if origin is None:
        tracer.facts.freeze(labels, f"they meet a constant in {function}")
    else:
        carry_elements(tracer, origin[0], origin[1], labels)
