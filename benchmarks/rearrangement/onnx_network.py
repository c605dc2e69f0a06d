"""An ONNX file as a torch module with the weights it was trained to."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.zoo import import_torchvision

INSTALL = "pip install --no-deps -r benchmarks/rearrangement/requirements.txt"
# The optimizer shall fold shapes into constants, and leave every weight as it was trained.
KEPT_APART = ("ConvBNFusion", "ConvMulFusion", "ConvAddFusion", "ConvActivationFusion", "MatMulAddFusion")


def onnx_network(path: Path, shape: Sequence[int]) -> nn.Module:
    """The network of an ONNX file with one input of fixed shape, in eval mode.

    Raises:
        OneXNError: onnx2torch is not installed.
    """
    import_torchvision()
    try:
        convert = importlib.import_module("onnx2torch").convert
    except ModuleNotFoundError as error:
        raise OneXNError("onnx2torch", "is not installed", INSTALL) from error
    network = _with_constant_shapes(path, shape)
    _write_scales_as_integers(network)
    return convert(network).eval()


def _with_constant_shapes(path: Path, shape: Sequence[int]) -> onnx.ModelProto:
    """The model after constant folding for inputs of this shape."""
    runtime = importlib.import_module("onnxruntime")
    network = onnx.load(path)
    for dim, size in zip(network.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = size
    for output in network.graph.output:
        output.type.tensor_type.ClearField("shape")
    del network.graph.value_info[:]
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="onexn-onnx-") as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        runtime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"],
                                 disabled_optimizers=list(KEPT_APART))
        return onnx.shape_inference.infer_shapes(onnx.load(options.optimized_model_filepath))


def _write_scales_as_integers(network: onnx.ModelProto) -> None:
    """Factors of Resize become buffers of the torch module; the proof's noise on floating-point buffers would change
    the shapes of activations."""
    factors = {name for node in network.graph.node if node.op_type == "Resize" for name in node.input[1:]}
    for tensor in network.graph.initializer:
        if tensor.name in factors:
            values = numpy_helper.to_array(tensor)
            if (values == values.astype(np.int64)).all():
                tensor.CopyFrom(numpy_helper.from_array(values.astype(np.int64), tensor.name))
