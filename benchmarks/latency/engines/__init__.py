"""One engine per file. Each runs in a Python of its own, so a file imports what it measures only inside functions.

An engine is a module with
    REQUIREMENTS   what `pip install` is given, one tuple per call; none: it runs in this package's own environment
    PACKAGE        the distribution whose version is reported
    SETTINGS       for readers: how it was made as fast as it gets on one thread in float32
    prepare(onnx, folder) -> Path      translate the network; the folder is new, and keeps what it needs to run
    load(prepared, image) -> Runner    ready to run on this image [1, 3, height, width]
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

Runner = Callable[[], np.ndarray]

OURS, PEAK = "onexn", "peak"
# In the order of the tables. Dense ones get the unpruned network, sparse ones the very masks that we get.
DENSE = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "ncnn": "ncnn", "mnn": "MNN",
         "litert": "LiteRT (XNNPACK)"}
SPARSE = {"deepsparse": "DeepSparse", "mnn_sparse": "MNN, sparse kernels"}
TITLES = {PEAK: "Peak of the core", OURS: "This package", **DENSE, **SPARSE}


def engine(name: str) -> Any:
    """The engine's module; its libraries need not be installed for that."""
    return importlib.import_module(f"{__name__}.{name}")
