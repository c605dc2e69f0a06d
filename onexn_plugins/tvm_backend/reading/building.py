"""Makes the graph of a model: whatever depends on constants and shapes alone is evaluated, what can be said in simpler
operators is expanded, so that what is left computes on activations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import ModelProto, TypeProto, ValueInfoProto, helper, numpy_helper

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.tvm_backend.reading.expansion.table import expanded
from onexn_plugins.tvm_backend.reading.graph import INTERNAL_DOMAIN, Graph, Node, TensorSpec, evaluate
from onexn_plugins.tvm_backend.reading.limits import check_dimensions
from onexn_plugins.tvm_backend.reading.onnx_model import weights_of
from onexn_plugins.tvm_backend.reading.opset import opset_of
from onexn_plugins.tvm_backend.reading.ways_out import EXPORT_AGAIN, OTHER_LAYERS, STATIC_SHAPES
from onexn_plugins.tvm_backend.reading.widening import Wide

# The first opset whose rules for ceil_mode give the shapes that every runtime gives.
CEILED_RIGHT = 22
# The first one that tells the shape of these.
_SHAPED_SINCE = {"GreaterOrEqual": 16, "LessOrEqual": 16}


def build_graph(model: ModelProto) -> Graph:
    """The graph of a checked model (see load_onnx_model).

    Raises:
        OneXNError: a node is not a standard operator, is given shapes it cannot take, or makes a tensor that is too
            large or of a shape that only run-time values decide.
    """
    constants = weights_of(model.graph)
    specs = {item.name: _input_spec(item) for item in model.graph.input if item.name not in constants}
    # What has no element is known, whoever gives it.
    constants.update((name, np.zeros(spec.shape, spec.dtype)) for name, spec in specs.items() if 0 in spec.shape)
    outputs = tuple(item.name for item in model.graph.output)
    graph = Graph([], constants, specs, tuple(specs), outputs, outputs, opset_of(model))
    wide = Wide(graph)
    for proto in model.graph.node:
        _add(graph, Node(proto), wide)
    graph.prune()
    return graph


def _input_spec(item: ValueInfoProto) -> TensorSpec:
    kind = item.type.tensor_type
    return TensorSpec(tuple(dim.dim_value for dim in kind.shape.dim),
                      np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)))


def _add(graph: Graph, node: Node, wide: Wide) -> None:
    """Append the node, what it expands to, or its value where that is known already."""
    if node.proto.domain == INTERNAL_DOMAIN:
        graph.nodes.append(node)
        return
    if node.op in _OF_SHAPES and node.inputs[0] in graph.specs:
        (value,) = evaluate(graph, node, {node.inputs[0]: np.zeros(*_spec(graph, node.inputs[0]))})
        graph.constants[node.output] = value
    elif all(name in graph.constants for name in node.reads) and not _is_random(node):
        values = evaluate(graph, node, graph.constants, _expected(graph, node))
        graph.constants.update(zip(node.outputs, values, strict=True))
    elif wide.applies(node):
        stated = dict(_infer(graph, node, must_know=False))
        *casts, computed = wide.nodes(node)
        for item in (*casts, computed):
            _add(graph, item, wide)
        for item in wide.rounded(node, computed, stated):
            _add(graph, item, wide)
    elif (simpler := expanded(graph, node)) is not None:
        for item in simpler:  # one by one: a loop goes on as the values of the last round say
            _add(graph, item, wide)
    else:
        graph.specs.update(_infer(graph, node))
        _append(graph, node)


# Operators that look at their input's shape and type alone.
_OF_SHAPES = ("EyeLike", "Shape", "Size")


def _spec(graph: Graph, name: str) -> tuple[tuple[int, ...], np.dtype]:
    return graph.shape(name), graph.dtype(name)


def _append(graph: Graph, node: Node) -> None:
    """Append the node. An output without elements is known already, whoever makes it."""
    empty = {name: graph.new_name(name) for name in node.outputs if 0 in graph.specs[name].shape}
    for name, unused in empty.items():
        spec = graph.specs.pop(name)
        graph.specs[unused] = spec
        graph.constants[name] = np.zeros(spec.shape, spec.dtype)
    if len(empty) < len(node.outputs):
        graph.nodes.append(node.renamed(empty, outputs_only=True) if empty else node)


def _is_random(node: Node) -> bool:
    return node.op.startswith("Random") or node.op in ("Bernoulli", "Multinomial")


def _expected(graph: Graph, node: Node) -> dict[str, TensorSpec]:
    """What an operator that is evaluated makes, as far as its constants tell; not too large, or it is refused."""
    # Range is asked for scalars and given lists of one number; constants of definitions are written for later opsets.
    if node.subgraphs or node.op in ("Range", "Constant"):
        return {}
    return dict(_infer(graph, node, must_know=False))


def _infer(graph: Graph, node: Node, must_know: bool = True) -> Iterator[tuple[str, TensorSpec]]:
    """Shape and type of the node's outputs, from ONNX's own rules for that operator."""
    schema = _schema(graph, node)
    names = [name for name in node.inputs if name]
    types = {name: TensorSpec(graph.shape(name), graph.dtype(name)).onnx_type for name in names}
    # Only small integer constants decide shapes; handing over every weight would copy them all.
    data = {name: numpy_helper.from_array(graph.constants[name]) for name in names
            if name in graph.constants and graph.constants[name].size <= 64}
    try:
        inferred = onnx.shape_inference.infer_node_outputs(
            schema, node.proto, types, data, opset_imports=[helper.make_opsetid("", graph.opset)], ir_version=10)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise OneXNError(node.label, f"cannot take these inputs: {_in_words(error)}", EXPORT_AGAIN) from error
    for name in node.outputs:
        spec = _output_spec(node, name, inferred.get(name))
        if spec is not None:
            yield name, _as_scaled(graph, node, spec)
        elif must_know:
            raise OneXNError(node.label, f"the shape of its output {name!r} depends on run-time values",
                             _way_out(graph, node))


def _way_out(graph: Graph, node: Node) -> str:
    """How to get rid of a shape that is not known before the network runs."""
    if node.op in ("Compress", "NonMaxSuppression", "NonZero", "Unique"):
        return "End the exported network before it, and take this step on its outputs"
    # Shapes, axes, repeats ... stand behind the first input and are integers.
    deciding = [name for name in node.inputs[1:] if name and name not in graph.constants
                and np.issubdtype(graph.dtype(name), np.integer)]
    return f"Make {', '.join(map(repr, deciding))} constant in the model" if deciding else STATIC_SHAPES


def _in_words(error: Exception) -> str:
    """ONNX's complaint without the tags around it."""
    return re.sub(r"\[\w+Error\]\s*|\(op_type:[^)]*\):?\s*", "", first_line(error))


def _as_scaled(graph: Graph, node: Node, spec: TensorSpec) -> TensorSpec:
    """The output of a Resize by scales as torch and onnxruntime have it: 10 times 1.3 is 13, also where the 1.3 is
    float32, which is a little less.
    """
    scales = graph.constant(node, 2) if node.op == "Resize" else None
    if scales is None or not scales.size or node.input(3):
        return spec
    shape, sizes = graph.shape(node.inputs[0]), list(spec.shape)
    for axis, scale in zip(node.attributes.get("axes", range(len(shape))), scales.astype(np.float32), strict=True):
        sizes[axis] = int(np.floor(np.float32(shape[axis]) * scale))
    return TensorSpec(tuple(sizes), spec.dtype)


def _schema(graph: Graph, node: Node) -> onnx.defs.OpSchema:
    # A window that would start in the padding behind the image does not count: the older rules forgot what torch and
    # onnxruntime have always done.
    ceiled = node.op in ("AveragePool", "LpPool", "MaxPool") and node.attributes.get("ceil_mode", 0)
    opset = max(graph.opset, CEILED_RIGHT if ceiled else _SHAPED_SINCE.get(node.op, 0))
    try:
        return onnx.defs.get_schema(node.op, opset, node.proto.domain)
    except onnx.defs.SchemaError as error:
        known = [schema.since_version for schema in onnx.defs.get_all_schemas_with_history()
                 if schema.name == node.op and schema.domain == node.proto.domain]
        if known:
            raise OneXNError(node.label, f"is no operator of opset {graph.opset}, but of {min(known)} and later",
                             EXPORT_AGAIN) from error
        domain = f", it is of the domain {node.proto.domain!r}" if node.proto.domain else ""
        raise OneXNError(node.label, f"is not a standard ONNX operator{domain}",
                         OTHER_LAYERS) from error


def _output_spec(node: Node, name: str, kind: TypeProto | None) -> TensorSpec | None:
    """None where the shape is not known."""
    what = str(kind.WhichOneof("value") or "tensor_type") if kind is not None else "tensor_type"
    if what != "tensor_type":
        raise OneXNError(node.label, f"its output {name!r} is no tensor, but a value of the kind "
                         f"{what.removesuffix('_type')!r}", "Export a model whose values are tensors")
    tensor = kind.tensor_type if kind is not None else None
    if tensor is None or not tensor.HasField("shape") or not all(
            dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)
    check_dimensions(node.label, shape)
    return TensorSpec(shape, np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
