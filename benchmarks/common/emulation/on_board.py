"""Runs on the emulated board: loads a saved network with TVM's runtime alone and runs it once.

    python on_board.py LIBRARY INPUTS.npz OUTPUTS.npz

LIBRARY lies in the network's folder. INPUTS holds arr_0, arr_1 ... in call order, OUTPUTS gets them the same way. It
prints the machine and TVM's version.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import numpy as np
import tvm
from tvm.runtime.vm import VirtualMachine


def main(library: str, inputs: str, outputs: str) -> None:
    """See the module's first lines."""
    machine = VirtualMachine(tvm.runtime.load_module(library), tvm.cpu())
    with np.load(inputs) as arrays:
        arguments = [tvm.runtime.tensor(arrays[f"arr_{number}"]) for number in range(len(arrays.files))]
    result = machine["main"](*arguments, machine["bind"](memory_of(Path(library).parent)))
    results = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    np.savez(outputs, *[tensor.numpy() for tensor in results])
    print(platform.machine(), tvm.__version__)


def memory_of(folder: Path) -> tvm.runtime.Tensor:
    """The memory that the network works on: its weights, and room behind them."""
    memory = np.zeros(json.loads((folder / "metadata.json").read_text())["memory_bytes"], np.uint8)
    weights = np.fromfile(folder / "weights.bin", np.uint8)
    memory[:weights.size] = weights
    return tvm.runtime.tensor(memory)


if __name__ == "__main__":
    main(*sys.argv[1:])
