"""Finds the places where one kernel of ours computes several nodes: an explicit, ordered list of rules.

A rule is a function (context, node) -> KernelCall that raises Unsupported with the reason where it does not apply.
What no rule takes is left to TVM's own lowering, and the report says why.
"""

from __future__ import annotations

from onexn_plugins.tvm_backend.kernels.problem import Unsupported
from onexn_plugins.tvm_backend.planning.fusion.context import Context, KernelCall, Rule, describe
from onexn_plugins.tvm_backend.planning.fusion.conv import fuse_conv, fuse_depthwise
from onexn_plugins.tvm_backend.planning.fusion.conv_depthwise import fuse_conv_depthwise, fuse_inverted_residual
from onexn_plugins.tvm_backend.planning.fusion.linear import fuse_linear
from onexn_plugins.tvm_backend.planning.fusion.pooling import fuse_global_pool, fuse_pool
from onexn_plugins.tvm_backend.planning.layer import Layer
from onexn_plugins.tvm_backend.planning.plan import Planner
from onexn_plugins.tvm_backend.planning.task import Choices
from onexn_plugins.tvm_backend.reading.graph import Graph, Node

__all__ = ["KernelCall", "fuse"]

# By operator, the rule that takes in the most first.
RULES: dict[str, tuple[Rule, ...]] = {
    "Conv": (fuse_inverted_residual, fuse_conv_depthwise, fuse_depthwise, fuse_conv),
    "Gemm": (fuse_linear,),
    "MaxPool": (fuse_pool,),
    "AveragePool": (fuse_pool,),
    "GlobalAveragePool": (fuse_global_pool,),
}


def fuse(graph: Graph, planner: Planner,
         choices: Choices | None = None) -> tuple[list[Node | KernelCall], list[Layer]]:
    """Nodes and kernel calls in an order that can run, and what became of every layer.

    A kernel call stands where the last of its nodes stood: its residual is made by then, its output not yet read.
    """
    context = Context(graph, planner, choices)
    ends: dict[Node, KernelCall] = {}
    layers: list[Layer] = []
    for node in graph.nodes:
        if node in context.covered or node.op not in RULES:
            continue
        call, reasons = _first_match(context, node)
        if call is not None:
            context.take(call)
            ends[call.nodes[-1]] = call
            layers.extend(call.layers)
        elif node.op in ("Conv", "Gemm"):
            operator = {"Conv": "conv", "Gemm": "linear"}[node.op]
            layers.append(describe(context, node, operator, f"no kernel: {'; '.join(reasons)}"))
    order = [ends.get(node, node) for node in graph.nodes if node in ends or node not in context.covered]
    return order, layers


def _first_match(context: Context, node: Node) -> tuple[KernelCall | None, list[str]]:
    reasons: list[str] = []
    for rule in RULES[node.op]:
        try:
            return rule(context, node), reasons
        except Unsupported as refusal:
            reasons.append(refusal.reason)
    return None, reasons
