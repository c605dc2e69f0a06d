"""Gemm + bias [+ residual] [+ activation] -> one kernel."""

from __future__ import annotations

from onexn_plugins.tvm_backend import kernels
from onexn_plugins.tvm_backend.fusion.context import Context, KernelCall, describe
from onexn_plugins.tvm_backend.graph import Node
from onexn_plugins.tvm_backend.kernels import Linear


def fuse_linear(context: Context, node: Node) -> KernelCall:
    """A linear layer in canonical form: x [rows, in], weight [out, in]."""
    weight, bias = context.weight(node)
    problem = Linear(context.graph.shape(node.inputs[0])[0], weight.shape[1], weight.shape[0])
    tail, decision = context.tail(node), context.decide(node)
    tile = kernels.default_tile(problem, decision.block_size, context.unit)
    kernel = kernels.linear(problem, weight, bias, tail.epilogue, context.unit, tile)
    layer = describe(context, node, "linear", decision, tile)
    return KernelCall((node, *tail.nodes), kernel, (node.inputs[0], *tail.residual), tail.output, (layer,))
