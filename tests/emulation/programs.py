"""Runs the program of a saved network, here or under an emulator."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onexn_plugins.tvm_backend.output.artefact import Artefact


def run_program(saved: Artefact, scratch: Path, inputs: Sequence[np.ndarray], *, emulator: Sequence[str] = (),
                options: Sequence[str] = ()) -> tuple[list[np.ndarray], str]:
    """The outputs of `network INPUT... OUTPUT...`, and what it printed.

    Errors:
        CalledProcessError: the program failed.
    """
    tensors = saved.metadata["outputs"]
    sent = [scratch / f"input_{number}.bin" for number in range(len(inputs))]
    came_back = [scratch / f"output_{number}.bin" for number in range(len(tensors))]
    for path, array in zip(sent, inputs, strict=True):
        array.tofile(path)
    command = [*emulator, str(saved.folder / "network"), *map(str, sent), *map(str, came_back), *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=300)
    outputs = [np.fromfile(path, tensor["dtype"]).reshape(tensor["shape"])
               for path, tensor in zip(came_back, tensors, strict=True)]
    return outputs, done.stdout
