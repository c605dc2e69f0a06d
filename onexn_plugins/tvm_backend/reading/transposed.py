"""Transposed convolutions: their weights, which ONNX has as [in, out / groups, *kernel], and those of stride 1."""

from __future__ import annotations

import numpy as np

from onexn_plugins.tvm_backend.reading.graph import Graph, Node


def groups_of(node: Node) -> int:
    """Its groups."""
    return int(node.attributes.get("group", 1))


def as_conv_weight(weight: np.ndarray, groups: int) -> np.ndarray:
    """[in, out / groups, *kernel] as [out, in / groups, *kernel], with the taps where they are."""
    parts = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
    return np.ascontiguousarray(parts).reshape(-1, *parts.shape[2:])


def in_two_axes(weight: np.ndarray) -> np.ndarray:
    """A weight of one axis as one of two, the first of which has one tap; others as they are."""
    return weight[:, :, None] if weight.ndim == 3 else weight


def per_output(values: np.ndarray, shape: tuple[int, ...], groups: int) -> np.ndarray:
    """One value per output channel so that it multiplies a weight [in, out / groups, *kernel]."""
    each = values.reshape(groups, 1, -1).repeat(shape[0] // groups, axis=1)
    return each.reshape(*shape[:2], *(1 for _ in shape[2:]))


def as_convolution(graph: Graph, node: Node) -> list[Node] | None:
    """One of stride 1 as the convolution that it is, with its taps turned round.

    None for other strides, and where so much is cut off that the convolution would have negative padding.
    """
    weight, attributes = graph.constant(node, 1), node.attributes
    axes = len(graph.shape(node.inputs[0])) - 2
    if weight is None or any(stride != 1 for stride in attributes.get("strides", ())):
        return None
    dilations, groups = attributes.get("dilations", [1] * axes), groups_of(node)
    pads, more = attributes.get("pads", [0] * (2 * axes)), attributes.get("output_padding", [0] * axes)
    reach = [(taps - 1) * dilation for taps, dilation in zip(weight.shape[2:], dilations, strict=True)]
    around = [*(far - begin for far, begin in zip(reach, pads[:axes], strict=True)),
              *(far - end + extra for far, end, extra in zip(reach, pads[axes:], more, strict=True))]
    if min(around) < 0:
        return None
    turned = np.flip(as_conv_weight(weight, groups), tuple(range(2, axes + 2)))
    name = graph.add_constant(turned.copy(), node.inputs[1])
    return [Node.make("Conv", [node.inputs[0], name, *node.inputs[2:]], node.outputs, node.name, pads=around,
                      dilations=list(dilations), group=groups)]
