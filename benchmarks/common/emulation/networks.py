"""Saved networks on the emulated machine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common.emulation.arm64_root import Arm64

ON_BOARD = Path(__file__).with_name("on_board.py")


def run_network(machine: Arm64, library: Path, inputs: Sequence[np.ndarray], *, cpu: str) -> list[np.ndarray]:
    """The outputs of a saved network's library, run once by TVM's own aarch64 runtime.

    Errors:
        RuntimeError: it failed, with what it said, or it did not run on aarch64.
    """
    with tempfile.TemporaryDirectory(prefix="onexn-emulated-") as folder:
        sent, came_back = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(sent, *inputs)
        said = machine.run([str(ON_BOARD), str(library), str(sent), str(came_back)], cpu=cpu)
        if not said.startswith("aarch64 "):
            raise RuntimeError(f"the network ran on another machine than the emulated one: {said}")
        with np.load(came_back) as arrays:
            return [arrays[f"arr_{number}"] for number in range(len(arrays.files))]
