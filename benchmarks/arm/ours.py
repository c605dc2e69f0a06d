"""Our networks, run by TVM's own aarch64 runtime in the emulated machine."""

from __future__ import annotations

from pathlib import Path

from benchmarks.arm.counting import CPU, Counter, Counts
from onexn_plugins.tvm_backend import compile_model
from onexn_plugins.tvm_backend.artefact import read
from tests.emulation.arm64_root import Arm64

RUN = Path(__file__).with_name("run_emulated.py")


def count(counter: Counter, machine: Arm64, onnx: Path, scratch: Path) -> Counts:
    """Instructions of one inference of the network in that file."""
    compiled = compile_model(onnx, target=CPU)
    library = read(compiled.save(scratch / onnx.stem), run_here=False).library
    shape = ",".join(str(size) for size in compiled.inputs[0].shape)
    return counter.count(lambda runs: [machine.python, str(RUN), "tvm", str(library), shape, str(runs)],
                         machine.environment)
