"""Reads an ONNX file and refuses, by name and with the way out, whatever cannot be compiled.

Nothing here trusts the file: sizes are compared before memory is taken, names before they are followed.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    external_data_helper,
    inliner,
    numpy_helper,
)

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.tvm_backend.reading.subgraphs import values_read

OLDEST_OPSET = 11
# Kernels index with int32, so no tensor may hold more elements than that.
MAX_ELEMENTS = 2**31 - 1
INPUT_TYPES = {TensorProto.DataType.Value(name) for name in (
    "FLOAT", "DOUBLE", "FLOAT16", "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")}
EXPORT_AGAIN = "Export the model again, for example with onexn_plugins.export_onnx"
STATIC_SHAPES = "Export with static shapes: give export_onnx example inputs and no dynamic_shapes"


def load_onnx_model(path: str | os.PathLike[str]) -> ModelProto:
    """The model in that file, checked: whole, acyclic, nodes in order, every weight present and finite.

    Raises:
        OneXNError: names the file, node or tensor, what is wrong with it and what to do.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise OneXNError(str(path), f"cannot be read: {error.strerror}", "Check the path of the ONNX file") from error
    return parse_onnx_model(content, Path(path))


def parse_onnx_model(content: bytes, path: Path) -> ModelProto:
    """The model of a file's content, checked as load_onnx_model does; external data is looked for beside `path`.

    Raises:
        OneXNError: as load_onnx_model.
    """
    model = _parse(content, path)
    if not model.graph.node:
        raise OneXNError(str(path), "is not an ONNX model, or one without any operator", EXPORT_AGAIN)
    _check_opset(model, path)
    if model.functions:
        model = inliner.inline_local_functions(model)
    for item in model.graph.input:
        _check_input(item)
    _load_weights(model, path)
    _sort_nodes(model, path)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise OneXNError(str(path), f"is not valid ONNX: {first_line(error)}", EXPORT_AGAIN) from error
    return model


def weights_of(graph: GraphProto) -> dict[str, np.ndarray]:
    """The arrays that a graph brings with it, by name."""
    return {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in graph.initializer}


def opset_of(model: ModelProto) -> int:
    """Version of the standard operators that the model uses; 0 where it names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _parse(content: bytes, path: Path) -> ModelProto:
    if not content:
        raise OneXNError(str(path), "is empty", EXPORT_AGAIN)
    try:
        return onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise OneXNError(str(path), "is not an ONNX file, or only a part of one", EXPORT_AGAIN) from error


def _check_opset(model: ModelProto, path: Path) -> None:
    opset, newest = opset_of(model), onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise OneXNError(str(path), f"uses ONNX opset {opset}; {OLDEST_OPSET} to {newest} are understood",
                         f"{EXPORT_AGAIN}, or convert it with onnx.version_converter")


def _check_input(item: ValueInfoProto) -> None:
    name, kind = f"input {item.name!r}", item.type.tensor_type
    if not item.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise OneXNError(name, "is no tensor of a known shape", STATIC_SHAPES)
    for axis, dim in enumerate(kind.shape.dim):
        if not dim.HasField("dim_value"):
            raise OneXNError(name, f"its dimension {axis} ({dim.dim_param or 'unnamed'}) is dynamic", STATIC_SHAPES)
    shape = [dim.dim_value for dim in kind.shape.dim]
    check_dimensions(name, shape)
    if 0 in shape:
        raise OneXNError(name, f"its shape {shape} holds no element", EXPORT_AGAIN)
    if kind.elem_type not in INPUT_TYPES:
        raise OneXNError(name, "has an element type that cannot be computed with", "Export the model in float32")


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
    for tensor in model.graph.initializer:
        _check_values(tensor)


def check_dimensions(name: str, dims: Iterable[int]) -> None:
    """Raise OneXNError where a dimension is negative or the tensor has more elements than int32 can index."""
    shape = list(dims)
    if any(size < 0 for size in shape):
        raise OneXNError(name, f"its shape {shape} has a negative dimension", EXPORT_AGAIN)
    if math.prod(shape) > MAX_ELEMENTS:
        raise OneXNError(name, f"its shape {shape} holds more than {MAX_ELEMENTS} elements",
                         "Export the model with smaller inputs")


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


def _check_values(tensor: TensorProto) -> None:
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise OneXNError(tensor.name, f"its data does not fill its shape {list(tensor.dims)}", EXPORT_AGAIN) from error
    # A weight has at least one dimension. Scalars may be infinite: they are bounds, as in Clip.
    if values.ndim and np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
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
