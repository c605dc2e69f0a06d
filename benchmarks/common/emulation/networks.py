"""Saved networks on the emulated machine."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from threading import Timer

import numpy as np

from benchmarks.common.emulation.arm64_root import Arm64

ON_BOARD = Path(__file__).with_name("on_board.py")


class DoesNotRunError(RuntimeError):
    """A network ended with an error; the emulated machine goes on."""


class Board:
    """The emulated machine with TVM's own aarch64 runtime loaded, which takes seconds; to be closed.

    Args:
        machine: the emulated machine.
        cpu: the core it is.
        seconds: that one run may take.
    """

    def __init__(self, machine: Arm64, *, cpu: str, seconds: float = 300) -> None:
        self._seconds = seconds
        self._folder = tempfile.TemporaryDirectory(prefix="onexn-emulated-")
        self._said = Path(self._folder.name) / "stderr.txt"
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                machine.command([str(ON_BOARD)], cpu=cpu), env=machine.environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)

    def close(self) -> None:
        """End the emulated process."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def run(self, library: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs of a saved network's library, run once.

        Errors:
            DoesNotRunError: the network says that it cannot, of an index that lies outside, say.
            RuntimeError: the process died, with what it said, or is none of aarch64; the board is of no use then.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        sent, came_back = Path(self._folder.name) / "inputs.npz", Path(self._folder.name) / "outputs.npz"
        np.savez(sent, *inputs)
        watch = Timer(self._seconds, self._process.kill)
        watch.start()
        try:
            self._process.stdin.write(json.dumps([str(library), str(sent), str(came_back)]) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            watch.cancel()
        if not answer:
            raise RuntimeError(f"the emulated process ended with {self._process.wait()}:\n{self._said.read_text()}")
        architecture, _version, reason = json.loads(answer)
        if architecture != "aarch64":
            raise RuntimeError(f"the network ran on another machine than the emulated one: {answer}")
        if reason is not None:
            raise DoesNotRunError(reason)
        with np.load(came_back) as arrays:
            return [arrays[f"arr_{number}"] for number in range(len(arrays.files))]


def run_network(machine: Arm64, library: Path, inputs: Sequence[np.ndarray], *, cpu: str) -> list[np.ndarray]:
    """The outputs of one saved network; see Board.run."""
    with closing(Board(machine, cpu=cpu)) as board:
        return board.run(library, inputs)
