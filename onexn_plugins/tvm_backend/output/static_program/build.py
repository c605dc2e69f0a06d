"""Builds a network's static program and library with the compiler that `linker` finds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import tvm

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.kernels.code.pipeline import PIPELINE
from onexn_plugins.tvm_backend.lowering.passes import pass_context, plan_memory
from onexn_plugins.tvm_backend.output.linker import archiver, run_compiler, static_compiler
from onexn_plugins.tvm_backend.output.static_program.program import Program, kernels, read_program
from onexn_plugins.tvm_backend.output.static_program.source import constants_source, network_source
from onexn_plugins.tvm_backend.processors import Target

RUNTIME = Path(__file__).with_name("runtime")
EXECUTABLE, LIBRARY, HEADER = "network", "libnetwork.a", "network.h"
PROGRAM_FILES = (EXECUTABLE, LIBRARY, HEADER)


@dataclass(frozen=True)
class StaticProgram:
    """A network's program and its compiled kernels.

    Attributes:
        target: what it was compiled for.
        program: which kernel runs on which tensors.
        kernels: LLVM's code for them.
    """

    target: Target
    program: Program
    kernels: tvm.runtime.Module

    # It needs no facts to be read again, and no process but its own runs it.
    writable: ClassVar[bool] = True
    run: ClassVar[None] = None
    time_calls: ClassVar[None] = None

    @property
    def facts(self) -> dict[str, Any]:
        """None."""
        return {}

    @property
    def written_bytes(self) -> int:
        """Weights go through objects, library and executable."""
        return 3 * len(self.program.constants)

    def write(self, folder: Path, _target: Target, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Link the network and put PROGRAM_FILES into the folder; see forms.Built."""
        compile_c, archive = static_compiler(self.target), archiver(self.target)
        with tempfile.TemporaryDirectory(prefix="onexn-") as build:
            objects = _compile(self, Path(build), compile_c, inputs, outputs)
            library, main = folder / LIBRARY, Path(build) / "main.o"
            run_compiler(self.target, [*archive, "rcs", str(library), *map(str, objects)])
            executable = ["-s", "-o", str(folder / EXECUTABLE), str(main), str(library), "-lm"]
            run_compiler(self.target, [*compile_c, *executable])
        shutil.copyfile(RUNTIME / HEADER, folder / HEADER)


def compile_program(module: tvm.IRModule, target: Target) -> StaticProgram:
    """Compile a network's Relax module, as `network.build_module` makes it.

    Raises:
        OneXNError: the target's system takes no static programs, or the network needs TVM's virtual machine.
    """
    if target.system != "linux":
        raise OneXNError(f"target {target.name!r}", f"static programs are for Linux, not {target.system}",
                         "Compile it as a library for TVM's runtime")
    config = tvm.target.Target(target.tvm)
    planned = plan_memory(module, config)
    program = read_program(planned)
    with config, pass_context():
        code = tvm.tirx.build(kernels(planned), target=config, pipeline=PIPELINE)
    return StaticProgram(target, program, code)


def _compile(network: StaticProgram, build: Path, compile_c: Sequence[str], input_names: Sequence[str],
             output_names: Sequence[str]) -> list[Path]:
    """The library's objects, and main.o beside them."""
    (build / "network.c").write_text(network_source(network.program, input_names, output_names), encoding="utf-8")
    (build / "constants.bin").write_bytes(bytes(network.program.constants))
    (build / "constants.S").write_text(constants_source(str(build / "constants.bin")), encoding="utf-8")
    network.kernels.write_to_file(str(build / "kernels.o"), "o")
    sources = [build / "network.c", build / "constants.S", RUNTIME / "runtime.c", RUNTIME / "integers.c",
               RUNTIME / "main.c"]
    for source in sources:
        output = build / f"{source.stem}.o"
        run_compiler(network.target, [*compile_c, "-c", f"-I{RUNTIME}", "-o", str(output), str(source)])
    return [build / name for name in ("kernels.o", "network.o", "constants.o", "runtime.o", "integers.o")]
