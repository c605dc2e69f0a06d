"""A network as code for TVM's virtual machine, and the one block of memory that it works on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax import transform

from onexn_plugins.tvm_backend.kernels.code.pipeline import PIPELINE
from onexn_plugins.tvm_backend.lowering.passes import pass_context, plan_memory
from onexn_plugins.tvm_backend.lowering.placement import BIND, place
from onexn_plugins.tvm_backend.output.huge_pages import allocate
from onexn_plugins.tvm_backend.output.linker import shared_library_linker
from onexn_plugins.tvm_backend.processors import Target

LIBRARY_FILES = LIBRARY, WEIGHTS = "network.so", "weights.bin"


class TVMLibrary:
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
              memory_bytes: int) -> TVMLibrary:
        """With these values at these places of its memory."""
        memory = allocate(memory_bytes)
        for start, values in weights:
            memory[start:start + values.nbytes] = values.reshape(-1).view(np.uint8)
        return cls(code, memory, weight_bytes)

    @classmethod
    def read(cls, folder: Path, facts: Mapping[str, Any]) -> TVMLibrary:
        """The network that `write` put there.

        Raises:
            OSError: a file cannot be read.
            RuntimeError: TVM cannot load the library.
            ValueError: so little memory does not hold the weights.
        """
        memory = allocate(int(facts["memory_bytes"]))
        with open(folder / WEIGHTS, "rb") as file:
            weight_bytes = file.readinto(memory.data)
            if file.read(1):
                raise ValueError(f"{memory.nbytes} bytes are less than the weights need")
        return cls(tvm.runtime.load_module(str(folder / LIBRARY)), memory, weight_bytes)

    def write(self, folder: Path, target: Target, _inputs: Sequence[str], _outputs: Sequence[str]) -> None:
        """Put LIBRARY_FILES into the folder; see forms.Built."""
        self.code.export_library(str(folder / LIBRARY), fcompile=shared_library_linker(target))
        with open(folder / WEIGHTS, "wb") as file:
            file.write(self.memory[:self.weight_bytes].data)

    @property
    def facts(self) -> dict[str, Any]:
        """How much memory it works on."""
        return {"memory_bytes": self.memory.nbytes}

    @property
    def written_bytes(self) -> int:
        """None: weights are written once, by us."""
        return 0

    @property
    def writable(self) -> bool:
        """TVM cannot write a library once more that comes from files."""
        return isinstance(self.code, relax.VMExecutable)

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

    def time_calls(self, run: Callable[[], object], repeat: int) -> list[tuple[str, float]]:
        """(function, median seconds) of every call that one run makes, in order."""
        marks: list[tuple[str, bool, float]] = []

        def record(_function: Any, name: str, before: bool, _result: Any, *_arguments: Any) -> int:
            marks.append((name, before, time.perf_counter()))
            return 0

        self.machine.set_instrument(record)
        runs = []
        try:
            for _ in range(repeat):
                marks.clear()
                run()
                runs.append([(name, end - start) for (name, before, start), (_, _, end) in pairwise(marks) if before])
        finally:
            self.machine.set_instrument(_ignore)
        names = [name for name, _ in runs[0]]
        medians = np.median([[seconds for _, seconds in calls] for calls in runs], axis=0)
        return [(name, float(seconds)) for name, seconds in zip(names, medians, strict=True)
                if not name.startswith("vm.builtin.")]


def _ignore(*_arguments: Any) -> int:
    return 0


def compile_library(module: tvm.IRModule, processor: Target) -> TVMLibrary:
    """Compile a module whose kernels are PrimFuncs called by call_tir, and whose other operators are Relax's own."""
    target = tvm.target.Target(processor.tvm)
    placed = place(plan_memory(module, target))
    code = compile_calls(placed.module, target)
    return TVMLibrary.build(code, placed.weights, placed.weight_bytes, placed.memory_bytes)


def compile_calls(module: tvm.IRModule, target: tvm.target.Target) -> relax.VMExecutable:
    """Compile functions that only call kernels, on memory that they are given."""
    with target, pass_context():
        return relax.build(module, target=target, relax_pipeline=tvm.transform.Sequential(_virtual_machine()),
                           tir_pipeline=PIPELINE)


def _virtual_machine() -> list[tvm.transform.Pass]:
    return [
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.ComputePrimValue(),
        transform.VMShapeLower(),
        transform.AttachGlobalSymbol(),
    ]
