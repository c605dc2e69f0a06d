"""Runs what was cross-compiled for 64-bit ARM in the tests' emulated machine, where that was fetched before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from onexn_plugins.tvm_backend.output.artefact import read
from tests import emulation
from tests.emulation.arm64_root import Arm64, fetched_machine

RUN_NETWORK = Path(emulation.__file__).with_name("run_network.py")
# (saved module, input) -> output
EmulatedRunner = Callable[[Path, np.ndarray], np.ndarray]


def find(target: str) -> tuple[EmulatedRunner | None, str]:
    """How to run a module saved for `target`, and a sentence for the report on what that shows.

    The runner is None where the machine is not there: the demo fetches nothing (the tests fetch it, 190 MB).
    """
    machine = fetched_machine()
    if machine is None:
        return None, (f"{target}: cross-compiled and not run, because the emulated machine is not here; `make test` "
                      "fetches it.")
    return partial(_run, machine, target), (f"{target}: cross-compiled and run whole by TVM’s own aarch64 runtime "
                                            "under qemu. An emulator shows that the outputs are right; it has no "
                                            "milliseconds to offer.")


def _run(machine: Arm64, target: str, saved: Path, array: np.ndarray) -> np.ndarray:
    with tempfile.TemporaryDirectory(prefix="onexn-emulated-") as folder:
        sent, came_back = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(sent, array)
        library = read(saved, run_here=False).library
        machine.run([str(RUN_NETWORK), str(library), str(sent), str(came_back)], cpu=target)
        with np.load(came_back) as arrays:
            return arrays["arr_0"]
