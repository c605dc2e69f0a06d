"""ONNX Runtime's CPU provider."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.latency.engines import Runner

REQUIREMENTS: tuple[tuple[str, ...], ...] = ()
PACKAGE = "onnxruntime"
SETTINGS = "CPU provider, all graph optimisations, one thread within and between operators, no spinning."


def prepare(onnx: Path, folder: Path) -> Path:
    return onnx


def load(prepared: Path, image: np.ndarray) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(prepared), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image}
    return lambda: session.run(None, feed)[0]
