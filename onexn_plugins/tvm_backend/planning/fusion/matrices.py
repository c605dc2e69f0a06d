"""Products of two activations, softmax, norms and transposes."""

from __future__ import annotations

import numpy as np
import torch

from onexn_plugins.tvm_backend.kernels.matrices import InstanceNorm, LayerNorm, MatMul, Matrices, Softmax, Transpose
from onexn_plugins.tvm_backend.kernels.problem import Unsupported
from onexn_plugins.tvm_backend.kernels.request import PLAIN, Stage
from onexn_plugins.tvm_backend.planning.fusion.chain import Link, Tail
from onexn_plugins.tvm_backend.planning.fusion.context import Context
from onexn_plugins.tvm_backend.planning.fusion.views import View, permutation, view_of
from onexn_plugins.tvm_backend.reading.graph import Node


def attention(context: Context, node: Node) -> tuple[Link, ...]:
    """Product [times a number], softmax, product [with its axes turned]."""
    scores = _product(context, node, turns=False)
    normed = context.next_node(scores.tail.output)
    if normed is None or normed.op != "Softmax":
        raise Unsupported("no softmax alone reads the product")
    (chances,) = softmax(context, normed)
    mixing = context.next_node(normed.output)
    if mixing is None or mixing.op != "MatMul" or mixing.inputs.index(normed.output) or len(set(mixing.inputs)) < 2:
        raise Unsupported("no product alone reads the softmax, on its left")
    mixed = _product(context, mixing, turns=True, left=View(normed.output, torch.empty(
        context.graph.shape(normed.output), device="meta")))
    if mixed.stage.problem.batch != scores.stage.problem.batch:  # type: ignore[union-attr]
        raise Unsupported("the second product repeats the softmax")
    return (scores, chances, Link(mixed.node, mixed.stage, mixed.tail, mixed.inputs[1:]))


def matmul(context: Context, node: Node) -> tuple[Link, ...]:
    """A product of activations [times a number] [with its axes turned]."""
    return (_product(context, node, turns=True),)


def softmax(context: Context, node: Node) -> tuple[Link, ...]:
    """Along one axis; before opset 13 along all from one on, for which it was another operator."""
    shape = _float_shape(context, node.inputs[0])
    since = context.graph.opset
    axis = node.attributes.get("axis", -1 if since >= 13 else 1) % len(shape)
    if since < 13 and axis != len(shape) - 1:
        raise Unsupported("along several axes at once")
    return (Link(node, Stage(Softmax(shape, axis)), _alone(node)),)


def layer_norm(context: Context, node: Node) -> tuple[Link, ...]:
    """With constant scale and shift."""
    graph, shape = context.graph, _float_shape(context, node.inputs[0])
    if len(node.outputs) > 1:
        raise Unsupported("its mean or deviation is asked for")
    if node.attributes.get("stash_type", 1) != 1:
        raise Unsupported("its mean is asked for in another type")
    axis = node.attributes.get("axis", -1)
    scale, shift = graph.constant(node, 1), graph.constant(node, 2)
    if scale is None or scale.dtype != np.float32 or (node.input(2) and shift is None):
        raise Unsupported("its scale and shift are no float32 constants")
    problem = LayerNorm(shape, axis, node.attributes.get("epsilon", 1e-5))
    row = shape[axis % len(shape):]
    try:
        scale, shift = (None if value is None else np.ascontiguousarray(np.broadcast_to(value, row).reshape(-1))
                        for value in (scale, shift))
    except ValueError as error:
        raise Unsupported("its scale varies along other axes") from error
    return (Link(node, Stage(problem, scale=scale, shift=shift), _alone(node)),)


def instance_norm(context: Context, node: Node) -> tuple[Link, ...]:
    """With constant scale and shift, and the residual and activation after it."""
    graph, shape = context.graph, _float_shape(context, node.inputs[0])
    scale, shift = graph.constant(node, 1), graph.constant(node, 2)
    if any(value is None or value.dtype != np.float32 for value in (scale, shift)):
        raise Unsupported("its scale and shift are no float32 constants")
    if len(shape) < 3 or 0 in shape:
        raise Unsupported("its channels hold nothing")
    tail = context.tail(node)
    problem = InstanceNorm(shape, epsilon=node.attributes.get("epsilon", 1e-5))
    return (Link(node, Stage(problem, epilogue=tail.epilogue, scale=scale, shift=shift), tail),)


def transpose(context: Context, node: Node) -> tuple[Link, ...]:
    """Any order of axes."""
    shape = _float_shape(context, node.inputs[0])
    return (Link(node, Stage(Transpose(shape, permutation(context.graph, node))), _alone(node)),)


def _product(context: Context, node: Node, *, turns: bool, left: View | None = None) -> Link:
    """Of two activations, of one or several matrices each; `turns` takes in a transpose of the result."""
    graph = context.graph
    shapes = [_float_shape(context, name) for name in node.inputs]
    if min(map(len, shapes)) < 2:
        raise Unsupported("an operand is a vector")
    if 0 in (*shapes[0], *shapes[1]):
        raise Unsupported("an operand holds nothing")
    first, second = left or view_of(context, node.inputs[0]), view_of(context, node.inputs[1])
    made = graph.shape(node.output)
    batch, (rows, inner), columns = tuple(made[:-2]), shapes[0][-2:], shapes[1][-1]
    tail, result = _written(context, node, turns)
    problem = MatMul(batch, rows, inner, columns, first.matrices(graph, batch), second.matrices(graph, batch), result)
    return Link(node, Stage(problem), tail, (first.source, second.source))


def _written(context: Context, node: Node, turns: bool) -> tuple[Tail, Matrices]:
    """What follows a product and is taken in: factors, then a transpose that leaves columns where they are."""
    graph, value, nodes, factors = context.graph, node.output, list[Node](), list[float]()
    shape = graph.shape(value)
    while (scaled := context.next_node(value)) is not None and scaled.op == "Mul":
        constant = next((graph.constants[name] for name in scaled.inputs if name in graph.constants), None)
        if constant is None or constant.size != 1 or graph.shape(scaled.output) != shape:
            break
        factors.append(float(constant.reshape(())))
        nodes.append(scaled)
        value = scaled.output
    turned = context.next_node(value) if turns else None
    order = tuple(range(len(shape)))
    if turned is not None and turned.op == "Transpose" and permutation(graph, turned)[-1] == order[-1]:
        order = permutation(graph, turned)
        nodes.append(turned)
        value = turned.output
    made = graph.shape(value)
    # Axis i of what is made is axis order[i] of the product.
    walk = torch.empty(made, device="meta").permute([order.index(axis) for axis in range(len(order))])
    return Tail(tuple(nodes), PLAIN, (), value), Matrices(made, tuple(walk.stride()), 0, tuple(factors))


def _float_shape(context: Context, name: str) -> tuple[int, ...]:
    spec = context.graph.specs.get(name)
    if spec is None or name in context.graph.constants or spec.dtype != np.float32 or not spec.shape:
        raise Unsupported("only float32 activations have kernels")
    return spec.shape


def _alone(node: Node) -> Tail:
    return Tail((), PLAIN, (), node.output)
