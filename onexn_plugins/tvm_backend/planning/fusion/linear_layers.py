"""Gemm + bias [+ residual] [+ activation]."""

from __future__ import annotations

from onexn_plugins.tvm_backend.kernels.problem import Linear
from onexn_plugins.tvm_backend.kernels.request import Stage
from onexn_plugins.tvm_backend.planning.fusion.chain import Link
from onexn_plugins.tvm_backend.planning.fusion.context import Context
from onexn_plugins.tvm_backend.reading.graph import Node


def linear(context: Context, node: Node) -> tuple[Link, ...]:
    """A linear layer in canonical form: x [rows, in], weight [out, in]."""
    weights, tail = context.weights(node), context.tail(node)
    out_features, in_features = weights.values.shape
    problem = Linear(context.graph.shape(node.inputs[0])[0], in_features, out_features)
    return (Link(node, Stage(problem, weights, tail.epilogue), tail),)
