"""Chains that begin with a convolution: what follows them in MobileNets stays in the cache."""

from __future__ import annotations

from onexn_plugins.tvm_backend.kernels.problem import Conv, Unsupported
from onexn_plugins.tvm_backend.kernels.request import Stage
from onexn_plugins.tvm_backend.planning.fusion.chain import Link
from onexn_plugins.tvm_backend.planning.fusion.context import Context
from onexn_plugins.tvm_backend.reading.graph import Node


def conv(context: Context, node: Node) -> tuple[Link, ...]:
    """Conv + bias [+ residual] [+ activation]."""
    return (conv_link(context, node),)


def conv_depthwise(context: Context, node: Node) -> tuple[Link, ...]:
    """Conv [+ activation] + depthwise Conv that alone reads it [+ residual] [+ activation]."""
    first = conv_link(context, node, residual=False)
    if first.stage.kind == "depthwise":
        raise Unsupported("the first convolution is depthwise itself")
    second = context.next_node(first.tail.output)
    if second is None or second.op != "Conv" or second.inputs[0] != first.tail.output:
        raise Unsupported("no depthwise convolution follows")
    link = conv_link(context, second)
    if link.stage.kind != "depthwise":
        raise Unsupported("the convolution that follows is not depthwise")
    return first, link


def inverted_residual(context: Context, node: Node) -> tuple[Link, ...]:
    """As conv_depthwise, with the convolution that alone reads the depthwise one's output."""
    first, second = conv_depthwise(context, node)
    last = context.next_node(second.tail.output)
    if last is None or last.op != "Conv" or last.inputs[0] != second.tail.output:
        raise Unsupported("no convolution follows the depthwise one")
    third = conv_link(context, last)
    if third.stage.kind == "depthwise":
        raise Unsupported("another depthwise convolution follows")
    return first, second, third


def conv_link(context: Context, node: Node, *, residual: bool = True) -> Link:
    """A Conv node as a link.

    Raises:
        Unsupported: it is not two-dimensional, or its weight is not constant.
    """
    problem, tail = conv_problem(context, node), context.tail(node, residual=residual)
    return Link(node, Stage(problem, context.weights(node, problem.groups), tail.epilogue), tail)


def conv_problem(context: Context, node: Node) -> Conv:
    """The convolution that a Conv node asks for.

    Raises:
        Unsupported: it is not two-dimensional.
    """
    image, weight = context.graph.shape(node.inputs[0]), context.graph.shape(node.inputs[1])
    if len(image) != 4 or len(weight) != 4:
        raise Unsupported("only two-dimensional convolutions have kernels")
    attributes = node.attributes
    batch, in_channels, height, width = image
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return Conv(
        batch, in_channels, height, width, weight[0], kernel=(weight[2], weight[3]),
        stride=_pair(attributes.get("strides")), padding=(top, left, bottom, right),
        dilation=_pair(attributes.get("dilations")), groups=attributes.get("group", 1),
    )


def _pair(values: list[int] | None) -> tuple[int, int]:
    return (values[0], values[1]) if values else (1, 1)
