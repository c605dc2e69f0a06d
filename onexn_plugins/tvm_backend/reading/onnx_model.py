"""Reads an ONNX file and refuses, by name and with the way out, whatever cannot be compiled.

Nothing here trusts the file: sizes are compared before memory is taken, names before they are followed.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    external_data_helper,
    inliner,
    numpy_helper,
)

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.tvm_backend.reading.input_shapes import Shapes, fix_input_shapes
from onexn_plugins.tvm_backend.reading.limits import check_dimensions
from onexn_plugins.tvm_backend.reading.opset import check_opset, understood
from onexn_plugins.tvm_backend.reading.subgraphs import values_read
from onexn_plugins.tvm_backend.reading.ways_out import EXPORT_AGAIN

# Whose constants are weights.
_LAYERS = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "GRU", "Gemm", "GroupNormalization",
                     "InstanceNormalization", "LSTM", "LayerNormalization", "MatMul", "RNN"})


def load_onnx_model(path: str | os.PathLike[str], input_shapes: Shapes | None = None) -> ModelProto:
    """The model in that file, checked: whole, acyclic, nodes in order, every weight present and finite.

    Args:
        path: of the file.
        input_shapes: shapes of inputs that have dynamic dimensions, by name; "" stands for the only such input.

    Raises:
        OneXNError: names the file, node or tensor, what is wrong with it and what to do.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise OneXNError(str(path), f"cannot be read: {error.strerror}", "Check the path of the ONNX file") from error
    return parse_onnx_model(content, Path(path), input_shapes)


def parse_onnx_model(content: bytes, path: Path, input_shapes: Shapes | None = None) -> ModelProto:
    """The model of a file's content, checked as load_onnx_model does; external data is looked for beside `path`.

    Raises:
        OneXNError: as load_onnx_model.
    """
    model = _parse(content, path)
    if not model.graph.node:
        raise OneXNError(str(path), "is not an ONNX model, or one without any operator", EXPORT_AGAIN)
    check_opset(model, path)
    if model.functions:
        model = inliner.inline_local_functions(model)
    fix_input_shapes(model, input_shapes)
    _load_weights(model, path)
    _sort_nodes(model, path)
    _complete_outputs(model)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise OneXNError(str(path), f"is not valid ONNX: {first_line(error)}", EXPORT_AGAIN) from error
    return understood(model, path)


def _complete_outputs(model: ModelProto) -> None:
    """The checker asks for a type and shape of each output; what they are is inferred later, operator by operator."""
    for item in model.graph.output:
        if item.type.WhichOneof("value") in (None, "tensor_type"):
            tensor = item.type.tensor_type
            tensor.elem_type = tensor.elem_type or TensorProto.FLOAT
            tensor.shape.SetInParent()


def weights_of(graph: GraphProto) -> dict[str, np.ndarray]:
    """The arrays that a graph brings with it, by name."""
    return {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in graph.initializer}


def _parse(content: bytes, path: Path) -> ModelProto:
    if not content:
        raise OneXNError(str(path), "is empty", EXPORT_AGAIN)
    try:
        return onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise OneXNError(str(path), "is not an ONNX file, or only a part of one", EXPORT_AGAIN) from error


def _load_weights(model: ModelProto, path: Path) -> None:
    """Bring external data in, then check shape, size and values of every weight."""
    if model.graph.sparse_initializer:
        raise OneXNError(str(path), "holds sparse initialisers", "Export dense weights; zero blocks are found in them")
    for tensor in model.graph.initializer:
        check_dimensions(tensor.name, tensor.dims)
        _check_external(tensor, path)
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise OneXNError(str(path), f"its external data cannot be read: {first_line(error)}",
                         "Keep the data file beside the ONNX file, or export with external_data=False") from error
    weights = {name for node in model.graph.node if node.op_type in _LAYERS for name in node.input}
    for tensor in model.graph.initializer:
        _check_values(tensor, tensor.name in weights)


def _check_external(tensor: TensorProto, path: Path) -> None:
    if tensor.data_location != TensorProto.EXTERNAL:
        return
    info = {entry.key: entry.value for entry in tensor.external_data}
    data = path.parent / info.get("location", "")
    fix = f"Put {data.name or 'the data file'} beside {path.name}, or export with external_data=False"
    if not data.is_file():
        raise OneXNError(tensor.name, f"its external data file {str(data)!r} is missing", fix)
    try:
        end = int(info.get("offset", 0)) + int(info.get("length", 0))
    except ValueError as error:
        raise OneXNError(tensor.name, "its external data has no readable offset and length", EXPORT_AGAIN) from error
    if end > data.stat().st_size:
        raise OneXNError(tensor.name, f"its external data file {str(data)!r} is cut short", fix)


def _check_values(tensor: TensorProto, is_weight: bool) -> None:
    """Its data is whole; that of a layer is finite. Masks of attention and bounds are not."""
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise OneXNError(tensor.name, f"its data does not fill its shape {list(tensor.dims)}", EXPORT_AGAIN) from error
    if is_weight and np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        raise OneXNError(tensor.name, "the weight holds NaN or infinite values",
                         "Check the training run; export finite weights")


def _sort_nodes(model: ModelProto, path: Path) -> None:
    """Bring the nodes into an order in which every value exists before it is used."""
    graph = model.graph
    known = {item.name for item in graph.initializer} | {item.name for item in graph.input} | {""}
    made = Counter(name for node in graph.node for name in node.output if name)
    made.update(name for name in known if name)
    twice = next((name for name, count in made.items() if count > 1), None)
    if twice is not None:
        raise OneXNError(str(path), f"the value {twice!r} is made twice", EXPORT_AGAIN)
    waiting, ordered = list(graph.node), []
    while waiting:
        blocked = []
        for node in waiting:
            if known.issuperset(values_read(node)):
                ordered.append(node)
                known.update(node.output)
            else:
                blocked.append(node)
        if len(blocked) == len(waiting):
            _refuse_order(blocked, known, made)
        waiting = blocked
    missing = next((item.name for item in graph.output if item.name not in known), None)
    if missing is not None:
        raise OneXNError(str(path), f"nothing makes its output {missing!r}", EXPORT_AGAIN)
    del graph.node[:]
    graph.node.extend(ordered)


def _refuse_order(waiting: list[NodeProto], known: set[str], made: Counter[str]) -> None:
    for node in waiting:
        absent = next((name for name in values_read(node) if name not in known and name not in made), None)
        if absent is not None:
            raise OneXNError(f"{node.op_type} {node.name!r}",
                             f"its input {absent!r} is neither a weight, an input nor another node's output",
                             EXPORT_AGAIN)
    names = ", ".join(repr(node.name or node.op_type) for node in waiting[:3])
    raise OneXNError(f"nodes {names}", "they wait for each other's outputs: the graph has a cycle", EXPORT_AGAIN)
