"""Engines that run an ONNX file. One that is not installed is left out by name, never silently."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Runner = Callable[[], Any]
Factory = Callable[[Path, np.ndarray, int], Runner]


def onnxruntime(path: Path, array: np.ndarray, threads: int) -> Runner:
    """ONNX Runtime's CPU provider, every graph optimisation on (its default)."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: array}
    return lambda: session.run(None, feed)


def openvino(path: Path, array: np.ndarray, threads: int) -> Runner:
    """OpenVINO in float32, one stream."""
    core = importlib.import_module("openvino").Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32",
                "ENABLE_CPU_PINNING": False}
    request = core.compile_model(str(path), "CPU", settings).create_infer_request()
    return lambda: request.infer({0: array}, share_inputs=True)


PEERS: dict[str, Factory] = {"onnxruntime": onnxruntime, "openvino": openvino}


def installed() -> tuple[dict[str, Factory], list[str]]:
    """Engines that can be imported here, and the names of those that cannot."""
    found, absent = {}, []
    for name, factory in PEERS.items():
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            absent.append(name)
        else:
            found[name] = factory
    return found, absent
