"""The shapes of a model's inputs: those the file states, and those its caller gives to dynamic dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import ModelProto, TensorProto, ValueInfoProto

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.reading.limits import check_dimensions

Shapes = Mapping[str, Sequence[int]]
INPUT_TYPES = {TensorProto.DataType.Value(name) for name in (
    "FLOAT", "DOUBLE", "FLOAT16", "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")}


def inputs_of(model: ModelProto) -> list[ValueInfoProto]:
    """What the caller gives: inputs that are no weights."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [item for item in model.graph.input if item.name not in weights]


def fix_input_shapes(model: ModelProto, shapes: Shapes | None) -> None:
    """Give the inputs these shapes, in place, then check that every dimension is known.

    Args:
        model: as it was parsed.
        shapes: by the name of the input; "" stands for the one that has a dynamic dimension, or is the only one.

    Raises:
        OneXNError: an input is unknown, a shape contradicts the file, or a dimension is still dynamic.
    """
    items = inputs_of(model)
    symbols: dict[str, int] = {}
    for name, shape in (shapes or {}).items():
        symbols.update(_fix(_named(items, name), shape))
    for item in items:
        for dim in item.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:  # the same dimension of another input
                dim.dim_value = symbols[dim.dim_param]
    for item in model.graph.input:
        _check(item)


def _named(items: list[ValueInfoProto], name: str) -> ValueInfoProto:
    if not name:
        candidates = [item for item in items if not _is_static(item)] or items
        if len(candidates) == 1:
            return candidates[0]
        raise OneXNError("input shape", f"which input it is of is not clear: the model has {_list(candidates)}",
                         f"Name it, for example {candidates[0].name if candidates else 'x'}=1,3,224,224")
    found = next((item for item in items if item.name == name), None)
    if found is None:
        raise OneXNError(f"input {name!r}", f"the model has no input of this name, it has {_list(items)}",
                         "Give shapes for these")
    return found


def _list(items: list[ValueInfoProto]) -> str:
    return ", ".join(f"{item.name} {_stated(item)}" for item in items)


def _stated(item: ValueInfoProto) -> str:
    """The shape as the file states it: [N, 3, ?, ?]."""
    kind = item.type.tensor_type
    if not kind.HasField("shape"):
        return "of any shape"
    sizes = (str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim)
    return f"[{', '.join(sizes)}]"


def _is_static(item: ValueInfoProto) -> bool:
    kind = item.type.tensor_type
    return kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim)


def _fix(item: ValueInfoProto, shape: Sequence[int]) -> dict[str, int]:
    """Give it that shape; what its named dimensions became comes back."""
    label, kind = f"input {item.name!r}", item.type.tensor_type
    if not item.type.HasField("tensor_type"):
        return {}  # refused below, as what it is
    if isinstance(shape, (str, bytes)) or not all(isinstance(size, int) and size > 0 for size in shape):
        raise OneXNError(label, f"{shape!r} is no shape", "Give a tuple of positive sizes such as (1, 3, 224, 224)")
    dims = kind.shape.dim
    fits = not kind.HasField("shape") or (len(dims) == len(shape) and all(
        not dim.HasField("dim_value") or dim.dim_value == size for dim, size in zip(dims, shape, strict=True)))
    if not fits:
        raise OneXNError(label, f"the shape {list(shape)} was asked for, and the file states {_stated(item)}",
                         "Give a shape that differs in dynamic dimensions only, or export the model again")
    symbols = {dim.dim_param: size for dim, size in zip(dims, shape, strict=False) if dim.dim_param}
    kind.shape.ClearField("dim")
    for size in shape:
        kind.shape.dim.add().dim_value = size
    return symbols


def _check(item: ValueInfoProto) -> None:
    name, kind = f"input {item.name!r}", item.type.tensor_type
    if not item.type.HasField("tensor_type"):
        raise OneXNError(name, "is no tensor", "Export a model that takes tensors")
    if not kind.HasField("shape"):
        raise OneXNError(name, "its shape is unknown, even its number of dimensions", how_to_fix(item))
    for axis, dim in enumerate(kind.shape.dim):
        if not dim.HasField("dim_value"):
            raise OneXNError(name, f"its dimension {axis} ({dim.dim_param or 'unnamed'}) is dynamic",
                             how_to_fix(item))
    check_dimensions(name, [dim.dim_value for dim in kind.shape.dim])
    if kind.elem_type not in INPUT_TYPES:
        what = TensorProto.DataType.Name(kind.elem_type)
        raise OneXNError(name, f"has elements of type {what}, which cannot be computed with",
                         "Export the model in float32")


def how_to_fix(item: ValueInfoProto) -> str:
    """An example of a shape for it, on the command line and in Python."""
    kind, image = item.type.tensor_type, (1, 3, 224, 224)
    sizes = [dim.dim_value if dim.HasField("dim_value") else image[axis] if len(kind.shape.dim) == 4 else 1
             for axis, dim in enumerate(kind.shape.dim)] or list(image)
    return (f"Fix it with --input-shape {item.name}={','.join(map(str, sizes))} on the command line, or with "
            f"compile_model(..., input_shapes={{{item.name!r}: {tuple(sizes)}}})")
