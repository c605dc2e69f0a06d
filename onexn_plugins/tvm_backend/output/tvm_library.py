"""A network as code for TVM's virtual machine, and the one block of memory that it works on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax import transform

from onexn_plugins.tvm_backend.lowering.passes import pass_context, plan_module
from onexn_plugins.tvm_backend.lowering.placement import BIND, place
from onexn_plugins.tvm_backend.output.huge_pages import allocate
from onexn_plugins.tvm_backend.output.linker import shared_library_linker
from onexn_plugins.tvm_backend.processors import Target

LIBRARY, WEIGHTS = "network.so", "weights.bin"


class VMNetwork:
    """See the module's first lines.

    Attributes:
        code: what `placement.place` makes, compiled.
        memory: the bytes it works on, weights first.
        weight_bytes: how many of them are weights.
    """

    def __init__(self, code: relax.VMExecutable | tvm.runtime.Module, memory: np.ndarray, weight_bytes: int) -> None:
        self.code, self.memory, self.weight_bytes = code, memory, weight_bytes

    @classmethod
    def build(cls, code: relax.VMExecutable, weights: Iterable[tuple[int, np.ndarray]], weight_bytes: int,
              memory_bytes: int) -> VMNetwork:
        """With these values at these places of its memory."""
        memory = allocate(memory_bytes)
        for start, values in weights:
            memory[start:start + values.nbytes] = values.reshape(-1).view(np.uint8)
        return cls(code, memory, weight_bytes)

    @classmethod
    def read(cls, folder: Path, memory_bytes: int) -> VMNetwork:
        """The network that `write` put there.

        Raises:
            OSError: a file cannot be read.
            RuntimeError: TVM cannot load the library.
            ValueError: so little memory does not hold the weights.
        """
        memory = allocate(memory_bytes)
        with open(folder / WEIGHTS, "rb") as file:
            weight_bytes = file.readinto(memory.data)
            if file.read(1):
                raise ValueError(f"{memory_bytes} bytes are less than the weights need")
        return cls(tvm.runtime.load_module(str(folder / LIBRARY)), memory, weight_bytes)

    def write(self, folder: Path, target: Target) -> None:
        """Put LIBRARY and WEIGHTS into the folder.

        Raises:
            OneXNError: nothing here links for the target, or the linker fails.
            OSError: the disk refuses.
        """
        self.code.export_library(str(folder / LIBRARY), fcompile=shared_library_linker(target))
        with open(folder / WEIGHTS, "wb") as file:
            file.write(self.memory[:self.weight_bytes].data)

    @property
    def loaded(self) -> bool:
        """Whether it comes from files, which TVM cannot write once more."""
        return not isinstance(self.code, relax.VMExecutable)

    @cached_property
    def machine(self) -> relax.VirtualMachine:
        return relax.VirtualMachine(self.code, tvm.cpu())

    @cached_property
    def run(self) -> Callable[..., Any]:
        """Takes a tensor per input and returns the output, or the outputs where there are several; each run allocates
        its own. One at a time: the virtual machine has one stack, the network one place for each activation.
        """
        bound = self.machine[BIND](tvm.runtime.from_dlpack(self.memory))
        return partial(self.machine.module["invoke_closure"], bound)


def compile_module(module: tvm.IRModule, target: tvm.target.Target) -> VMNetwork:
    """Compile a module whose kernels are PrimFuncs called by call_tir, and whose other operators are Relax's own."""
    placed = place(plan_module(module, target))
    code = compile_calls(placed.module, target)
    return VMNetwork.build(code, placed.weights, placed.weight_bytes, placed.memory_bytes)


def compile_calls(module: tvm.IRModule, target: tvm.target.Target) -> relax.VMExecutable:
    """Compile functions that only call kernels, on memory that they are given."""
    with target, pass_context():
        return relax.build(module, target=target, relax_pipeline=tvm.transform.Sequential(_virtual_machine()))


def _virtual_machine() -> list[tvm.transform.Pass]:
    return [
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.ComputePrimValue(),
        transform.VMShapeLower(),
        transform.AttachGlobalSymbol(),
    ]
