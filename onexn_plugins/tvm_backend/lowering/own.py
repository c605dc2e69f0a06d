"""The operators that this package lowers itself, because TVM's importer lacks them or computes something else.

To add one: write `operators/<kind>.py` with a function of the type Emitter, and enter it in EMITTERS. It returns one
expression per output of the node, or None where these attributes and types are left to TVM.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import relax

from onexn_plugins.tvm_backend.lowering.operators import (
    comparisons,
    extremes,
    indexing,
    integers,
    moving,
    places,
    pointwise,
)
from onexn_plugins.tvm_backend.lowering.operators.cumsum import cumulative_sum
from onexn_plugins.tvm_backend.lowering.operators.grid_sample import grid_sample
from onexn_plugins.tvm_backend.lowering.operators.max_pool import max_pool
from onexn_plugins.tvm_backend.lowering.operators.normalisation import batch_normalisation
from onexn_plugins.tvm_backend.lowering.operators.ordering import top_k
from onexn_plugins.tvm_backend.lowering.operators.recurrence import recurrence
from onexn_plugins.tvm_backend.lowering.operators.resize import resize
from onexn_plugins.tvm_backend.lowering.operators.roi_align import roi_align
from onexn_plugins.tvm_backend.reading.expansion.recurrent import RECURRENCE
from onexn_plugins.tvm_backend.reading.graph import Graph, Node

# (builder, graph, node, the node's inputs in order with None for those left out) -> its outputs
Emitter = Callable[[relax.BlockBuilder, Graph, Node, list[relax.Expr]], "list[relax.Expr] | None"]

EMITTERS: dict[str, Emitter] = {
    "ArgMax": places.arg_max,
    "ArgMin": places.arg_min,
    "BatchNormalization": batch_normalisation,
    "Clip": extremes.clip,
    "Concat": moving.concatenate,
    "CumSum": cumulative_sum,
    "DepthToSpace": moving.depth_to_space,
    "Div": pointwise.divide,
    "Elu": pointwise.elu,
    "Equal": comparisons.equal,
    "Erf": pointwise.erf,
    "Gather": indexing.gather,
    "GatherElements": indexing.gather_elements,
    "GatherND": indexing.gather_nd,
    "Greater": comparisons.greater,
    "GreaterOrEqual": comparisons.greater_or_equal,
    "GridSample": grid_sample,
    "HardSigmoid": extremes.hard_sigmoid,
    "HardSwish": extremes.hard_swish,
    "IsInf": extremes.is_infinite,
    "Less": comparisons.less,
    "LessOrEqual": comparisons.less_or_equal,
    "Max": extremes.largest,
    "MaxPool": max_pool,
    "MaxUnpool": indexing.max_unpool,
    "Min": extremes.smallest,
    "Mod": integers.modulo,
    "Mul": pointwise.multiply,
    "Pad": moving.pad,
    "ReduceMax": extremes.reduce_max,
    "ReduceMin": extremes.reduce_min,
    "Relu": extremes.relu,
    "Resize": resize,
    "ReverseSequence": indexing.reverse_sequence,
    "RoiAlign": roi_align,
    "ScatterElements": indexing.scatter_elements,
    "ScatterND": indexing.scatter_nd,
    "Selu": pointwise.selu,
    "Sigmoid": pointwise.sigmoid,
    "Sign": pointwise.sign,
    "SpaceToDepth": moving.space_to_depth,
    "Sub": comparisons.subtract,
    "Tanh": pointwise.tanh,
    "ThresholdedRelu": extremes.thresholded_relu,
    "Tile": moving.tile,
    "TopK": top_k,
    RECURRENCE: recurrence,
}
