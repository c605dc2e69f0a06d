"""Transposed convolutions, with what follows them."""

from __future__ import annotations

from onexn_plugins.tvm_backend.kernels.problem import Transposed, Unsupported
from onexn_plugins.tvm_backend.kernels.request import Stage
from onexn_plugins.tvm_backend.planning.fusion.chain import Link
from onexn_plugins.tvm_backend.planning.fusion.context import Context
from onexn_plugins.tvm_backend.reading.graph import Node


def transposed(context: Context, node: Node) -> tuple[Link, ...]:
    """ConvTranspose + bias [+ residual] [+ activation]."""
    problem, tail = _problem(context, node), context.tail(node)
    return (Link(node, Stage(problem, context.weights(node, problem.groups), tail.epilogue), tail),)


def _problem(context: Context, node: Node) -> Transposed:
    """What a ConvTranspose node asks for, with the height 1 where its images have one axis.

    Raises:
        Unsupported: they have more than two.
    """
    image, weight = context.graph.shape(node.inputs[0]), context.graph.shape(node.inputs[1])
    axes = len(image) - 2
    if axes not in (1, 2):
        raise Unsupported("only one- and two-dimensional transposed convolutions have kernels")
    attributes = node.attributes
    groups, pads = attributes.get("group", 1), attributes.get("pads", [0] * (2 * axes))
    (top, left), (bottom, right) = _pair(pads[:axes], 0), _pair(pads[axes:], 0)
    height, width = _pair(image[2:], 1)
    return Transposed(
        image[0], image[1], height, width, weight[1] * groups, kernel=_pair(weight[2:], 1),
        stride=_pair(attributes.get("strides", [1] * axes), 1), padding=(top, left, bottom, right),
        dilation=_pair(attributes.get("dilations", [1] * axes), 1), groups=groups,
        size=_pair(context.graph.shape(node.output)[2:], 1), axes=axes)


def _pair(values: list[int] | tuple[int, ...], missing: int) -> tuple[int, int]:
    """(vertical, horizontal)."""
    return (values[0], values[1]) if len(values) == 2 else (missing, values[0])
