"""Where random networks run: here, or on an emulated ARM core."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common.emulation.arm64_root import Arm64, arm64_machine
from benchmarks.common.emulation.networks import Board, DoesNotRunError
from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.tvm_backend.output.artefact import REBUILD, read
from onexn_plugins.tvm_backend.running.compiled import Compiled

# (network, inputs) -> outputs
Run = Callable[[Compiled, Sequence[np.ndarray]], list[np.ndarray]]


def run_here(compiled: Compiled, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """In this process."""
    outputs = compiled.run(*inputs)
    return outputs if isinstance(outputs, list) else [outputs]


class EmulatedCore:
    """Runs what is compiled for a 64-bit ARM core as the emulator's core of that name, or as all it can emulate."""

    def __init__(self, core: str) -> None:
        self._machine: Arm64 = arm64_machine(partial(print, file=sys.stderr))
        self._cpu = core if core in self._machine.cores else "max"
        self._board: Board | None = None

    def __call__(self, compiled: Compiled, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs.

        Errors:
            OneXNError: the network ended with an error, as Compiled.run says it here.
            RuntimeError: the emulated process died; the next call starts another one.
        """
        with tempfile.TemporaryDirectory(prefix="onexn-fuzz-") as folder:
            saved = read(compiled.save(Path(folder) / "network"), run_here=False)
            self._board = self._board or Board(self._machine, cpu=self._cpu)
            try:
                return self._board.run(saved.library, inputs)
            except DoesNotRunError as error:
                raise OneXNError("network", f"does not run: {first_line(error)}", REBUILD) from error
            except RuntimeError:
                self.close()
                raise

    def close(self) -> None:
        """End the emulated process."""
        if self._board:
            self._board.close()
        self._board = None
