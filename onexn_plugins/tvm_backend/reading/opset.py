"""Brings a model of an older opset to one that the rest of the backend understands."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, helper, numpy_helper, version_converter

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.tvm_backend.reading.subgraphs import subgraphs_of
from onexn_plugins.tvm_backend.reading.ways_out import EXPORT_AGAIN

# What operators mean is understood from here on; older models are converted, as far back as ONNX can.
UNDERSTOOD, OLDEST = 11, 7


def opset_of(model: ModelProto) -> int:
    """Version of the standard operators that the model uses; 0 where it names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def check_opset(model: ModelProto, path: Path) -> None:
    """Raise OneXNError where the model's opset is too old or too new."""
    opset, newest = opset_of(model), onnx.defs.onnx_opset_version()
    if opset == 0:
        raise OneXNError(str(path), "names no ONNX opset, so what its operators mean is unknown", EXPORT_AGAIN)
    if not OLDEST <= opset <= newest:
        raise OneXNError(str(path), f"uses ONNX opset {opset}; {OLDEST} to {newest} are understood", EXPORT_AGAIN)


def understood(model: ModelProto, path: Path) -> ModelProto:
    """The model itself, or converted where its opset is older than what is understood.

    Raises:
        OneXNError: ONNX's converter does not know how.
    """
    opset = opset_of(model)
    if opset >= UNDERSTOOD:
        return model
    try:
        converted = version_converter.convert_version(model, UNDERSTOOD)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise OneXNError(str(path), f"uses ONNX opset {opset}, and onnx.version_converter cannot bring it to opset "
                         f"{UNDERSTOOD}: {first_line(error)}", EXPORT_AGAIN) from error
    helper.set_model_props(converted, {entry.key: entry.value for entry in model.metadata_props})
    _resize_as_before(converted.graph)
    _drop_idle_values(converted.graph)
    return converted


def _drop_idle_values(graph: GraphProto) -> None:
    """The converter makes an input of a Pad's value, but for a mode that has no use for one, where it leaves it."""
    for node in graph.node:
        for inner in subgraphs_of(node):
            _drop_idle_values(inner)
        for attribute in [item for item in node.attribute if node.op_type == "Pad" and item.name == "value"]:
            node.attribute.remove(attribute)


def _resize_as_before(graph: GraphProto) -> None:
    """Say how Upsample and Resize read their input before opset 11, which the converter leaves to the new defaults.

    Pixels count from their corners, and the nearest one is, as in onnxruntime, the next lower one, or the next higher
    one where the image becomes smaller.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    for node in graph.node:
        for inner in subgraphs_of(node):
            _resize_as_before(inner)
        if node.op_type != "Resize":
            continue
        node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
        scales = constants.get(node.input[2]) if len(node.input) > 2 else None
        shrinks = scales is not None and numpy_helper.to_array(scales).min(initial=1) < 1
        node.attribute.append(helper.make_attribute("nearest_mode", "ceil" if shrinks else "floor"))
