"""Operators that are said in simpler ones while the graph is built, when every constant and shape before them is known.

Each rule looks at one node and gives the nodes that replace it, in order, or None where it does not apply. What a rule
gives is expanded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from onexn_plugins.tvm_backend.reading.expansion import (
    arithmetic,
    control_flow,
    functions,
    normalisation,
    recurrent,
    reductions,
    selection,
    shapes,
    transposed,
    windows,
)
from onexn_plugins.tvm_backend.reading.graph import Graph, Node

Rule = Callable[[Graph, Node], "Iterable[Node] | None"]

RULES: dict[str, Rule] = {
    **dict.fromkeys(functions.EXPANDED, functions.body),
    "If": control_flow.branch,
    "Loop": control_flow.loop,
    "Scan": control_flow.scan,
    "GroupNormalization": normalisation.group_normalization,
    "LpNormalization": normalisation.lp_normalization,
    "MeanVarianceNormalization": normalisation.mean_variance_normalization,
    "LayerNormalization": normalisation.layer_normalization,
    **dict.fromkeys(recurrent.GATES, recurrent.recurrence),
    **dict.fromkeys(reductions.REDUCTIONS, reductions.reduction),
    "Pow": arithmetic.power,
    "Celu": arithmetic.celu,
    "PRelu": arithmetic.prelu,
    "Gemm": arithmetic.gemm,
    "Dropout": arithmetic.dropout,
    "CastLike": arithmetic.cast_like,
    "Pad": shapes.pad,
    "Resize": windows.resize,
    "GlobalMaxPool": windows.global_max_pool,
    "LpPool": windows.lp_pool,
    "Split": shapes.split,
    "Slice": shapes.slices,
    "Transpose": shapes.transpose,
    "ConvTranspose": transposed.conv_transpose,
    "Hardmax": selection.hardmax,
    "OneHot": selection.one_hot,
    "MaxUnpool": selection.max_unpool,
}


def expanded(graph: Graph, node: Node) -> Iterable[Node] | None:
    """The nodes that say the same; None for an operator that is simple enough."""
    rule = RULES.get(node.op) if node.proto.domain in ("", "ai.onnx") else None
    return rule(graph, node) if rule is not None else None
