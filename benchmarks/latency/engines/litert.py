"""LiteRT (once TensorFlow Lite), whose CPU kernels are XNNPACK's; networks come through onnx2tf."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.latency.engines import Runner

# The second call: onnx2tf holds LiteRT back to an older version, which its converter needs no more than a newer one.
REQUIREMENTS = (("onnx2tf", "ai-edge-litert"), ("--no-deps", "--upgrade", "ai-edge-litert"))
PACKAGE = "ai-edge-litert"
SETTINGS = "onnx2tf (NHWC, batch norm folded, float32), XNNPACK delegate, one thread."
# onnx2tf checks itself on sample photos, which it would fetch from the network if this file were not there.
PHOTOS = "calibration_image_sample_data_20x128x128x3_float32.npy"


def prepare(onnx: Path, folder: Path) -> Path:
    np.save(folder / PHOTOS, np.zeros((20, 128, 128, 3), np.float32))
    source = shutil.copy(onnx, folder / "network.onnx")
    converter = [sys.executable, str(Path(sys.executable).with_name("onnx2tf"))]
    subprocess.run([*converter, "-i", source, "-o", str(folder / "tf"), "-n"], cwd=folder, check=True,
                   stdin=subprocess.DEVNULL, capture_output=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    prepared = shutil.move(folder / "tf" / "network_float32.tflite", folder / "network.tflite")
    shutil.rmtree(folder / "tf")
    for extra in (folder / PHOTOS, folder / "network.onnx"):
        extra.unlink()
    return Path(prepared)


def load(prepared: Path, image: np.ndarray) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(prepared), num_threads=1)
    interpreter.allocate_tensors()
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
    if tuple(given["shape"]) != image.shape:
        image = np.ascontiguousarray(image.transpose(0, 2, 3, 1))

    def run() -> np.ndarray:
        interpreter.set_tensor(given["index"], image)
        interpreter.invoke()
        return interpreter.get_tensor(result)

    return run
