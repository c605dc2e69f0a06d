"""Operators that the ONNX standard itself defines by simpler ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx
from onnx import FunctionProto, NodeProto, TypeProto, ValueInfoProto, helper, inliner

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.reading.graph import Graph, Node, TensorSpec
from onexn_plugins.tvm_backend.reading.ways_out import OTHER_LAYERS

# Those that neither kernels of ours nor TVM's importer know; others are faster, and rounded better, as a whole.
EXPANDED = ("AffineGrid", "Attention", "CausalConvWithState", "CenterCropPad", "DynamicQuantizeLinear",
            "LinearAttention", "NegativeLogLikelihoodLoss", "RMSNormalization", "RotaryEmbedding",
            "Shrink", "SoftmaxCrossEntropyLoss", "SwiGLU", "Swish", "ThresholdedRelu")

_LOCAL = "onexn.definition"


def body(graph: Graph, node: Node) -> Iterable[Node] | None:
    """The nodes of the standard's definition, with the attributes and types of this node; None where it has none."""
    definition = _definition(graph, node)
    if definition is None:
        return None
    called = _complete(onnx.defs.get_schema(node.op, graph.opset), node)
    called.domain = definition.domain = _LOCAL
    inputs = [ValueInfoProto(name=name) for name in dict.fromkeys(node.inputs) if name]
    single = helper.make_model(
        helper.make_graph([called], "function", inputs, [ValueInfoProto(name=name) for name in node.outputs]),
        opset_imports=[helper.make_opsetid("", graph.opset), helper.make_opsetid(_LOCAL, 1)], functions=[definition])
    inlined = inliner.inline_local_functions(single)
    names = {name: name for name in (*node.inputs, *node.outputs)}
    return inside(graph, node, [Node(item) for item in inlined.graph.node], names)


def _definition(graph: Graph, node: Node) -> FunctionProto | None:
    """The standard's definition of the operator for these types."""
    schema = onnx.defs.get_schema(node.op, graph.opset)
    types = [TensorSpec(graph.shape(name), graph.dtype(name)).onnx_type if name else TypeProto()
             for name in node.inputs]
    try:
        if schema.has_context_dependent_function:
            version = _written_for(schema.context_dependent_function_opset_versions, graph.opset)
            text = schema.get_context_dependent_function_with_opset_version(
                version, _complete(schema, node).SerializeToString(), [item.SerializeToString() for item in types])
        else:
            text = schema.get_function_with_opset_version(_written_for(schema.function_opset_versions, graph.opset))
        found = text if isinstance(text, FunctionProto) else FunctionProto.FromString(text)
    except (RuntimeError, ValueError) as error:
        raise OneXNError(node.label, "has a definition in the ONNX standard, which does not take these types and "
                         "attributes", OTHER_LAYERS) from error
    for item in (entry for entry in found.opset_import if entry.domain == ""):
        item.version = graph.opset
    return found if found.node else None


def _written_for(versions: Sequence[int], opset: int) -> int:
    """The newest that this opset has; the oldest one where a definition came later than its operator."""
    return max((version for version in versions if version <= opset), default=min(versions, default=opset))


def _complete(schema: onnx.defs.OpSchema, node: Node) -> NodeProto:
    """The node with every attribute that has a default: definitions refer to them."""
    proto = NodeProto()
    proto.CopyFrom(node.proto)
    for name, attribute in schema.attributes.items():
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
