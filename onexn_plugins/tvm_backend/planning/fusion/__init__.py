"""Finds the places where one kernel of ours computes several nodes: an explicit, ordered list of rules.

A rule is a function (context, node) -> chain of links that raises Unsupported with the reason where it does not apply.
The first chain that a kernel family serves is taken. What none takes is left to TVM's own lowering, and the report says
why.
"""

from __future__ import annotations

from dataclasses import replace

from onexn_plugins.tvm_backend.kernels.problem import Unsupported
from onexn_plugins.tvm_backend.planning.choices import Choices
from onexn_plugins.tvm_backend.planning.fusion.chain import KernelCall
from onexn_plugins.tvm_backend.planning.fusion.context import Context, Rule, describe_layer
from onexn_plugins.tvm_backend.planning.fusion.convolutions import conv, conv_depthwise, inverted_residual
from onexn_plugins.tvm_backend.planning.fusion.linear_layers import linear
from onexn_plugins.tvm_backend.planning.fusion.matrices import (
    attention,
    instance_norm,
    layer_norm,
    matmul,
    softmax,
    transpose,
)
from onexn_plugins.tvm_backend.planning.fusion.pooling import global_pool, pool
from onexn_plugins.tvm_backend.planning.fusion.transposed_layers import transposed
from onexn_plugins.tvm_backend.planning.layer import Layer
from onexn_plugins.tvm_backend.planning.plan import Planner
from onexn_plugins.tvm_backend.reading.graph import Graph, Node

__all__ = ["KernelCall", "fuse"]

# By operator, what is asked in turn, the rule that takes in the most first.
RULES: dict[str, tuple[tuple[str, Rule], ...]] = {
    "Conv": (("fusion conv + depthwise + conv", inverted_residual), ("fusion conv + depthwise", conv_depthwise),
             ("conv", conv)),
    "ConvTranspose": (("transposed", transposed),),
    "Gemm": (("linear", linear),),
    "MaxPool": (("pool", pool),),
    "AveragePool": (("pool", pool),),
    "GlobalAveragePool": (("mean", global_pool),),
    "MatMul": (("fusion of attention", attention), ("matmul", matmul)),
    "Softmax": (("softmax", softmax),),
    "LayerNormalization": (("layer norm", layer_norm),),
    "InstanceNormalization": (("instance norm", instance_norm),),
    "Transpose": (("transpose", transpose),),
}
# What reports call the operators that have weights.
_LAYERS = {"Conv": "conv", "ConvTranspose": "transposed", "Gemm": "linear"}


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
        call, refused = _first_match(context, node)
        if call is not None:
            context.take(call)
            ends[call.nodes[-1]] = call
            layers.extend(call.layers)
        elif node.op in _LAYERS:
            operator = _LAYERS[node.op]
            reasons = "; ".join(dict.fromkeys(reason for _, reason in refused))
            layer = describe_layer(graph, node, operator, f"no kernel: {reasons}")
            layers.append(replace(layer, refused=tuple(refused)))
    order = [ends.get(node, node) for node in graph.nodes if node in ends or node not in context.covered]
    return _read(graph, order), layers


def _read(graph: Graph, order: list[Node | KernelCall]) -> list[Node | KernelCall]:
    """Without what nobody reads any more, because products read what it was a view of."""
    needed, kept = set(graph.outputs), list[Node | KernelCall]()
    for item in reversed(order):
        made, read = ((item.output,), item.inputs) if isinstance(item, KernelCall) else (item.outputs, item.reads)
        if needed.intersection(made):
            kept.append(item)
            needed.update(read)
    return kept[::-1]


def _first_match(context: Context, node: Node) -> tuple[KernelCall | None, list[tuple[str, str]]]:
    """The call of the first rule that a family serves, its first layer told what was refused before."""
    refused: list[tuple[str, str]] = []
    for name, rule in RULES[node.op]:
        try:
            call = context.call(rule(context, node))
        except Unsupported as refusal:
            refused.append((name, refusal.reason))
            continue
        if call.layers:
            first = replace(call.layers[0], refused=(*refused, *call.layers[0].refused))
            call = replace(call, layers=(first, *call.layers[1:]))
        return call, refused
    return None, refused
