"""ncnn, through its converter pnnx."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np

from benchmarks.latency.engines import Runner

# pnnx asks for torch, which only its Python front end uses; its converter is a program that reads ONNX.
REQUIREMENTS = (("ncnn", "numpy"), ("--no-deps", "pnnx"))
PACKAGE = "ncnn"
SETTINGS = ("pnnx (graph optimised, fp16 off); Winograd, sgemm and packed layouts on, fp16 and bf16 off, light mode, "
            "one thread.")


def prepare(onnx: Path, folder: Path) -> Path:
    source = shutil.copy(onnx, folder / "network.onnx")  # pnnx writes beside its input
    package = importlib.util.find_spec("pnnx")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("pnnx")
    subprocess.run([str(Path(package.origin).parent / "pnnx"), source, "fp16=0"], cwd=folder, check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    for extra in (*folder.glob("*pnnx*"), folder / "network.onnx"):
        extra.unlink()
    return folder / "network.ncnn"


def load(prepared: Path, image: np.ndarray) -> Runner:
    import ncnn

    net = ncnn.Net()
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, name, False)
    for name in ("use_winograd_convolution", "use_sgemm_convolution", "use_packing_layout", "lightmode"):
        setattr(net.opt, name, True)
    net.opt.num_threads = 1
    if net.load_param(f"{prepared}.param") or net.load_model(f"{prepared}.bin"):
        raise RuntimeError("ncnn cannot load what pnnx wrote")
    picture = ncnn.Mat(image[0]).clone()  # the Mat alone would not keep the array alive

    def run() -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input("in0", picture)
        return np.array(extractor.extract("out0")[1])

    return run
