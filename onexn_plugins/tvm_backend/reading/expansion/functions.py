"""Operators that the ONNX standard itself defines by simpler ones."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import NodeProto, ValueInfoProto, helper, inliner

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.tvm_backend.reading.graph import Graph, Node, TensorSpec
from onexn_plugins.tvm_backend.reading.ways_out import OTHER_LAYERS

# Those that neither kernels of ours nor TVM's importer know; others are faster, and rounded better, as a whole.
EXPANDED = ("AffineGrid", "Attention", "CausalConvWithState", "Celu", "CenterCropPad", "DynamicQuantizeLinear",
            "FlexAttention", "LinearAttention", "NegativeLogLikelihoodLoss", "RMSNormalization", "RotaryEmbedding",
            "Shrink", "SoftmaxCrossEntropyLoss", "SwiGLU", "Swish", "ThresholdedRelu")


def body(graph: Graph, node: Node) -> Iterable[Node] | None:
    """The nodes of the standard's definition, with the attributes and types of this node."""
    inputs = [helper.make_value_info(name, TensorSpec(graph.shape(name), graph.dtype(name)).onnx_type)
              for name in dict.fromkeys(node.inputs) if name]
    outputs = [ValueInfoProto(name=name) for name in node.outputs]
    single = helper.make_model(helper.make_graph([_complete(graph, node)], "function", inputs, outputs),
                               opset_imports=[helper.make_opsetid("", graph.opset)])
    try:
        inlined = inliner.inline_selected_functions(single, [("", node.op)], inline_schema_functions=True)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise OneXNError(node.label, f"cannot be expanded into simpler operators: {first_line(error)}",
                         OTHER_LAYERS) from error
    if any(item.op_type == node.op for item in inlined.graph.node):
        return None
    names = {name: name for name in (*node.inputs, *node.outputs)}
    return inside(graph, node, [Node(item) for item in inlined.graph.node], names)


def _complete(graph: Graph, node: Node) -> NodeProto:
    """The node with every attribute that has a default: definitions refer to them."""
    proto = NodeProto()
    proto.CopyFrom(node.proto)
    for name, attribute in onnx.defs.get_schema(node.op, graph.opset).attributes.items():
        if name not in node.attributes and attribute.default_value.name:
            proto.attribute.append(attribute.default_value)
    return proto


def inside(graph: Graph, node: Node, nodes: Iterable[Node], names: dict[str, str]) -> list[Node]:
    """The nodes as a part of the graph: values are called what `names` says, every other value that they make gets a
    name of its own there, and every node the name of the operator they stand for.
    """
    nodes = list(nodes)
    for name in (name for item in nodes for name in item.outputs):
        if name not in names:
            names[name] = graph.new_name(node.output)
    renamed = [item.renamed(names) for item in nodes]
    for item in renamed:
        item.proto.name = node.name or node.output
    return renamed
