"""Refuses what ONNX's shape inference lets through although no runtime can compute it."""

from __future__ import annotations

import math

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.reading.graph import Graph, Node
from onexn_plugins.tvm_backend.reading.ways_out import EXPORT_AGAIN


def check_nodes(graph: Graph) -> None:
    """Check every node.

    Raises:
        OneXNError: names the node and the contradiction.
    """
    for node in graph.nodes:
        if node.op == "Conv":
            _check_conv(graph, node)
        if node.op == "ConvTranspose":
            _check_conv_transpose(graph, node)
        if node.op == "BatchNormalization":
            _check_batch_norm(graph, node)
        if node.op == "Gather":
            _check_gather(graph, node)
        if node.op == "Reshape" and math.prod(graph.shape(node.output)) != math.prod(graph.shape(node.inputs[0])):
            raise OneXNError(node.label, f"cannot bring {list(graph.shape(node.inputs[0]))} into the shape "
                             f"{list(graph.shape(node.output))}", EXPORT_AGAIN)
        if node.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
            raise OneXNError(node.label, f"auto_pad {node.text('auto_pad', '')!r} is unknown", EXPORT_AGAIN)


def _check_conv(graph: Graph, node: Node) -> None:
    channels, weight = graph.shape(node.inputs[0])[1], graph.shape(node.inputs[1])
    groups = node.attributes.get("group", 1)
    fits = groups >= 1 and weight[0] % groups == 0 and weight[1] * groups == channels
    _check_weight(graph, node, fits, weight[0])


def _check_conv_transpose(graph: Graph, node: Node) -> None:
    channels, weight = graph.shape(node.inputs[0])[1], graph.shape(node.inputs[1])
    groups = node.attributes.get("group", 1)
    fits = groups >= 1 and weight[0] % groups == 0 and weight[0] == channels
    _check_weight(graph, node, fits, weight[1] * groups)


def _check_weight(graph: Graph, node: Node, fits: bool, out_channels: int) -> None:
    """What a Conv and a ConvTranspose are checked for alike."""
    channels, weight = graph.shape(node.inputs[0])[1], graph.shape(node.inputs[1])
    if not fits:
        raise OneXNError(node.label, f"a weight of shape {list(weight)} in {node.attributes.get('group', 1)} groups "
                         f"does not fit {channels} input channels", EXPORT_AGAIN)
    if node.input(2) and graph.shape(node.input(2)) != (out_channels,):
        raise OneXNError(node.label, f"a bias of shape {list(graph.shape(node.input(2)))} does not fit "
                         f"{out_channels} output channels", EXPORT_AGAIN)
    if tuple(node.attributes.get("kernel_shape", weight[2:])) != tuple(weight[2:]):
        raise OneXNError(node.label, f"kernel_shape {node.attributes['kernel_shape']} is not that of its weight "
                         f"{list(weight)}", EXPORT_AGAIN)


def _check_batch_norm(graph: Graph, node: Node) -> None:
    channels = graph.shape(node.inputs[0])[1]
    for name in node.inputs[1:]:
        if graph.shape(name) != (channels,):
            raise OneXNError(node.label, f"{name!r} has shape {list(graph.shape(name))} for {channels} channels",
                             EXPORT_AGAIN)
    variance = graph.constant(node, 4)
    if variance is not None and (variance < 0).any():
        raise OneXNError(node.label, "its variance is negative", "Check the training run")



def _check_gather(graph: Graph, node: Node) -> None:
    """TVM's gather reads without looking: a known index beyond the end would crash the process."""
    indices, shape = graph.constant(node, 1), graph.shape(node.inputs[0])
    size = shape[node.attributes.get("axis", 0)]
    if indices is not None and ((indices < -size).any() or (indices >= size).any()):
        raise OneXNError(node.label, f"an index lies outside {size} elements", EXPORT_AGAIN)
