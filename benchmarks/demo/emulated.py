"""Runs what was cross-compiled for 64-bit ARM in the emulated machine, where that was fetched before."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common.emulation.arm64_root import Arm64, fetched_machine
from benchmarks.common.emulation.networks import run_network
from onexn_plugins.tvm_backend.output.artefact import read

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
    return run_network(machine, read(saved, run_here=False).library, [array], cpu=target)[0]
