"""DeepSparse 1.8, the last version that runs networks; on Python up to 3.11."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency.engines import Runner

REQUIREMENTS = (("deepsparse==1.8.0",),)
PACKAGE = "deepsparse"
SETTINGS = "ONNX lowered to opset 13 and a global average pool, which its sparse engine takes; one core."
OPSET, IR_VERSION = 13, 7


def prepare(onnx: Path, folder: Path) -> Path:
    """The same network in the older opset; at a newer one it silently runs without its sparse engine."""
    import onnx as format_

    model = format_.load(str(onnx))
    axes = {tensor.name: sorted(format_.numpy_helper.to_array(tensor).tolist()) for tensor in model.graph.initializer
            if tensor.dims == [2]}
    for node in model.graph.node:
        if node.op_type == "ReduceMean":
            _to_pool(node, axes[node.input[1]])
        elif node.op_type == "Reshape":
            del node.attribute[:]  # allowzero is newer; our shapes hold no zero
    model.opset_import[0].version, model.ir_version = OPSET, IR_VERSION
    del model.metadata_props[:]
    path = folder / "network.onnx"
    format_.save(model, str(path))
    return path


def load(prepared: Path, image: np.ndarray) -> Runner:
    import deepsparse

    network = deepsparse.compile_model(str(prepared), batch_size=1, num_cores=1)
    if network.fraction_of_supported_ops < 1:
        raise RuntimeError(f"DeepSparse runs only {network.fraction_of_supported_ops:.0%} of the operators itself")
    return lambda: network.run([image])[0]


def _to_pool(node: Any, axes: list[int]) -> None:
    """A mean over height and width that keeps them, as the pooling operator it is."""
    keeps = {attribute.name: attribute.i for attribute in node.attribute}.get("keepdims", 1)
    if axes not in ([-2, -1], [2, 3]) or not keeps:
        raise ValueError(f"{node.name}: a mean over {axes} is no global pool")
    node.op_type = "GlobalAveragePool"
    del node.input[1:], node.attribute[:]
