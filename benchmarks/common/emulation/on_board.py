"""Runs on the emulated board: runs saved networks with TVM's runtime alone, one after the other.

Every line of its input is a JSON list [LIBRARY, INPUTS.npz, OUTPUTS.npz]. LIBRARY lies in the network's folder. INPUTS
holds arr_0, arr_1 ... in call order, OUTPUTS gets them the same way. It answers with a JSON list each: the machine,
TVM's version, and why the network does not run, or null where it did.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import numpy as np
import tvm
from tvm.runtime.vm import VirtualMachine


def run(library: str, inputs: str, outputs: str) -> None:
    """One network, once."""
    machine = VirtualMachine(tvm.runtime.load_module(library), tvm.cpu())
    with np.load(inputs) as arrays:
        arguments = [tvm.runtime.tensor(arrays[f"arr_{number}"]) for number in range(len(arrays.files))]
    result = machine["main"](*arguments, machine["bind"](memory_of(Path(library).parent)))
    results = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    np.savez(outputs, *[tensor.numpy() for tensor in results])


def memory_of(folder: Path) -> tvm.runtime.Tensor:
    """The memory that the network works on: its weights, and room behind them."""
    memory = np.zeros(json.loads((folder / "metadata.json").read_text())["memory_bytes"], np.uint8)
    weights = np.fromfile(folder / "weights.bin", np.uint8)
    memory[:weights.size] = weights
    return tvm.runtime.tensor(memory)


if __name__ == "__main__":
    for line in sys.stdin:
        try:
            run(*json.loads(line))
            reason = None
        except Exception as error:  # an index that lies outside, say
            reason = f"{type(error).__name__}: {error}"
        print(json.dumps([platform.machine(), tvm.__version__, reason]), flush=True)
