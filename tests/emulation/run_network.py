"""Runs on the emulated board: loads a shared library with TVM's runtime and runs its network once.

    python run_network.py LIBRARY INPUTS.npz OUTPUTS.npz

INPUTS holds arr_0, arr_1 ... in call order, OUTPUTS gets them the same way. It prints the machine and TVM's version.
"""

from __future__ import annotations

import platform
import sys

import numpy as np
import tvm
from tvm.runtime.vm import VirtualMachine


def main(library: str, inputs: str, outputs: str) -> None:
    """See the module's first lines."""
    machine = VirtualMachine(tvm.runtime.load_module(library), tvm.cpu())
    with np.load(inputs) as arrays:
        arguments = [tvm.runtime.tensor(arrays[f"arr_{number}"]) for number in range(len(arrays.files))]
    result = machine["main"](*arguments)
    results = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    np.savez(outputs, *[tensor.numpy() for tensor in results])
    print(platform.machine(), tvm.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
