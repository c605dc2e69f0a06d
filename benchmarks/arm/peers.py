"""ncnn, MNN and XNNPACK (through LiteRT): their own converters here, their aarch64 wheels in the emulated machine, away
from our environment."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from benchmarks.arm.counting import Counter, Counts
from benchmarks.arm.ours import RUN
from benchmarks.common.emulation.arm64_root import PLATFORMS, Arm64
from benchmarks.common.emulation.cache import made_once
from benchmarks.latency import processes

# Not as MNN.tools.mnnconvert: that one pip-installs a package and reports to its makers.
_MNN_CONVERT = "import sys, _tools; _tools.mnnconvert(['MNNConvert', *sys.argv[1:]])"

_MAKE_SPARSE = Path(__file__).with_name("sparse_litert.py")
_CONVERSION_SECONDS = 600.0

# LiteRT 2.2.0 and 2.3.0 end with a segmentation fault under qemu 7.2.
VERSIONS = {"ncnn": "1.0.20261020", "pnnx": "20261020", "MNN": "3.6.1", "ai-edge-litert": "2.1.6"}
_HERE, _BOARD = ("pnnx", "MNN"), ("ncnn", "MNN", "ai-edge-litert")


def ncnn(counter: Counter, machine: Arm64, onnx: Path, shape: str, scratch: Path) -> Counts:
    """Dense: ncnn has no sparse convolutions."""
    folder = _new(scratch / f"ncnn-{onnx.stem}", onnx)
    pnnx = _packages() / "here" / "pnnx" / "pnnx"
    _convert([str(pnnx), onnx.name, f"inputshape=[{shape}]", "fp16=0"], folder)
    return _count(counter, machine, "ncnn", str(folder / f"{onnx.stem}.ncnn"), shape)


def mnn(counter: Counter, machine: Arm64, onnx: Path, shape: str, scratch: Path, *options: str) -> Counts:
    """With options=["--detectSparseSpeedUp"] its converter turns sparse layers into its own sparse ones."""
    folder = _new(scratch / f"mnn-{onnx.stem}{''.join(options)}", onnx)
    _convert([sys.executable, "-c", _MNN_CONVERT, "-f", "ONNX", "--modelFile", onnx.name, "--MNNModel",
              "network.mnn", "--bizCode", "benchmark", *options], folder)
    return _count(counter, machine, "mnn", str(folder / "network.mnn"), shape)


def xnnpack(counter: Counter, machine: Arm64, onnx: Path, shape: str, scratch: Path, python: Path, *,
            sparse: bool) -> Counts:
    """XNNPACK as LiteRT's delegate; `sparse` asks for its sparse kernels, which it uses where its own rule says so.

    `python` is the one of an environment with LiteRT's converter.
    """
    folder = scratch / f"xnnpack-{onnx.stem}"
    folder.mkdir()
    network = processes.prepare("litert", python, onnx, folder, _CONVERSION_SECONDS)
    if sparse:
        rewritten = folder / "sparse.tflite"
        _checked([str(python), str(_MAKE_SPARSE), str(network), str(rewritten)], folder, dict(os.environ))
        network = rewritten
    return _count(counter, machine, "xnnpack", str(network), shape)


def _count(counter: Counter, machine: Arm64, engine: str, network: str, shape: str) -> Counts:
    path = os.pathsep.join([str(_packages() / "board"), machine.environment["PYTHONPATH"]])
    return counter.count(lambda runs: [machine.python, str(RUN), engine, network, shape, str(runs)],
                         {**machine.environment, "PYTHONPATH": path})


def _packages() -> Path:
    """The wheels for this machine ("here") and for the emulated one ("board"), unpacked."""
    name = "arm-peers-" + "-".join(VERSIONS.values())
    return made_once(name, _fetch)


def _fetch(folder: Path) -> None:
    platforms = [word for name in (*PLATFORMS, "manylinux_2_24_aarch64") for word in ("--platform", name)]
    for where, packages, options in (("here", _HERE, []), ("board", _BOARD, [
            "--python-version", "3.11", "--implementation", "cp", *platforms])):
        wanted = [f"{package}=={VERSIONS[package]}" for package in packages]
        wheels = folder / "wheels" / where
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                        "--dest", str(wheels), *options, *wanted], check=True)
        for wheel in wheels.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder / where)
    (folder / "here" / "pnnx" / "pnnx").chmod(0o755)


def _new(folder: Path, onnx: Path) -> Path:
    """A folder for a converter, which writes beside its input."""
    folder.mkdir()
    (folder / onnx.name).symlink_to(onnx)
    return folder


def _convert(command: list[str], folder: Path) -> None:
    _checked(command, folder, {**os.environ, "PYTHONPATH": str(_packages() / "here")})


def _checked(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout)[-500:]}")
