"""Chains that begin with a convolution: what follows them in MobileNets stays in the cache."""

from __future__ import annotations

from onexn_plugins.tvm_backend.kernels.problem import Unsupported
from onexn_plugins.tvm_backend.kernels.request import Stage
from onexn_plugins.tvm_backend.planning.fusion.chain import Link
from onexn_plugins.tvm_backend.planning.fusion.context import Context
from onexn_plugins.tvm_backend.planning.fusion.geometry import asked
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
    if link.stage.problem.input_shape != first.stage.problem.output_shape:
        raise Unsupported("the depthwise convolution reads its image as one of another shape")
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
    if third.stage.problem.input_shape != second.stage.problem.output_shape:
        raise Unsupported("the last convolution reads its image as one of another shape")
    return first, second, third


def conv_link(context: Context, node: Node, *, residual: bool = True) -> Link:
    """A Conv node as a link.

    Raises:
        Unsupported: it has more than three dimensions, or its weight is not constant.
    """
    graph = context.graph
    wanted = asked(graph.shape(node.inputs[0]), graph.shape(node.inputs[1]), node.attributes)
    weights = context.weights(node, wanted.problem.groups, wanted.weight)
    tail = context.tail(node, residual=residual)
    return Link(node, Stage(wanted.problem, weights, tail.epilogue), tail, note=wanted.note)
