"""MNN with its dense kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.latency.engines import Runner

REQUIREMENTS = (("MNN", "numpy"),)
PACKAGE = "MNN"
SETTINGS = "Converter asked for the fastest graph (`--optimizePrefer 2`); precision high, one thread."


def prepare(onnx: Path, folder: Path) -> Path:
    return convert(onnx, folder / "network.mnn")


def convert(onnx: Path, path: Path, *options: str) -> Path:
    """Run the converter. Not as MNN.tools.mnnconvert: that one pip-installs a package and reports to its makers."""
    import _tools

    _tools.mnnconvert(["MNNConvert", "-f", "ONNX", "--modelFile", str(onnx), "--MNNModel", str(path),
                       "--bizCode", "benchmark", "--optimizePrefer", "2", *options])
    if not path.is_file():
        raise RuntimeError("MNN's converter wrote no file")
    return path


def load(prepared: Path, image: np.ndarray) -> Runner:
    import MNN.expr
    import MNN.nn

    settings = {"precision": "high", "backend": "CPU", "numThread": 1}
    manager = MNN.nn.create_runtime_manager((settings,))
    # No names: the network's own inputs and outputs.
    network = MNN.nn.load_module_from_file(str(prepared), [], [], runtime_manager=manager)
    picture = MNN.expr.const(image.copy(), list(image.shape), MNN.expr.NCHW)
    picture = MNN.expr.convert(picture, MNN.expr.NC4HW4)
    return lambda: network.forward([picture])[0].read()
