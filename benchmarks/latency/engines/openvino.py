"""OpenVINO's CPU plugin."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.latency.engines import Runner

REQUIREMENTS = (("openvino",),)
PACKAGE = "openvino"
SETTINGS = "Latency hint, inference precision f32, one stream, one thread, input shared without a copy."


def prepare(onnx: Path, folder: Path) -> Path:
    return onnx


def load(prepared: Path, image: np.ndarray) -> Runner:
    import openvino

    # Its own pinning would move us off the core that all engines share.
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
    request = openvino.Core().compile_model(str(prepared), "CPU", settings).create_infer_request()
    return lambda: next(iter(request.infer({0: image}, share_inputs=True, share_outputs=True).values()))
