"""Our networks in the emulated machine: run by TVM's own aarch64 runtime, or as programs of their own on 32-bit ARM."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from benchmarks.arm.counting import Counter, Counts
from benchmarks.common.emulation.arm64_root import arm64_machine
from onexn_plugins.tvm_backend import Compiled, compile_model
from onexn_plugins.tvm_backend.output.artefact import read
from onexn_plugins.tvm_backend.processors import find_target

RUN = Path(__file__).with_name("run_emulated.py")


def count(counter: Counter, cpu: str, onnx: Path, scratch: Path) -> Counts:
    """Instructions of one inference of the network in that file, compiled for that core."""
    compiled = compile_model(onnx, target=cpu)
    folder = compiled.save(scratch / onnx.stem)
    return (_library if find_target(cpu).tvm_runtime else _program)(counter, compiled, Path(folder))


def _library(counter: Counter, compiled: Compiled, folder: Path) -> Counts:
    machine, library = arm64_machine(), read(folder, run_here=False).library
    shape = ",".join(str(size) for size in compiled.inputs[0].shape)
    return counter.count(lambda runs: [machine.python, str(RUN), "tvm", str(library), shape, str(runs)],
                         machine.environment)


def _program(counter: Counter, compiled: Compiled, folder: Path) -> Counts:
    """Its inputs are zeros: what is counted does not depend on them."""
    image = folder.parent / "image.bin"
    np.zeros(compiled.inputs[0].shape, np.float32).tofile(image)
    command = [str(folder / "network"), str(image), os.devnull]
    return counter.count(lambda runs: [*command, "--repeat", str(runs)])
