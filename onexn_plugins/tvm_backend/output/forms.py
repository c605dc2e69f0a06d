"""What a network becomes, and where each form is made: a new runtime is one more folder and one more row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tvm

from onexn_plugins.tvm_backend.output.static_program.build import PROGRAM_FILES, compile_program
from onexn_plugins.tvm_backend.output.tvm_library import LIBRARY_FILES, TVMLibrary, compile_library
from onexn_plugins.tvm_backend.processors import Target


class Built(Protocol):
    """A network, built."""

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values that reading it again needs, for the metadata beside its files."""

    @property
    def written_bytes(self) -> int:
        """Bytes of weights that the compiler and linker write besides code: asked for before they begin."""

    @property
    def writable(self) -> bool:
        """False where it was read from files, of which it cannot be written again."""

    @property
    def run(self) -> Callable[..., Any] | None:
        """Takes a tensor per input and returns the output, or the outputs; None where no process like this runs it."""

    @property
    def time_calls(self) -> Callable[[Callable[[], object], int], list[tuple[str, float]]] | None:
        """Times every call inside one run, so often: (function, median seconds); None where `run` is."""

    def write(self, folder: Path, target: Target, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Put the form's files into the folder; inputs and outputs are the names that a user sees.

        Raises:
            OneXNError: nothing here links for the target, or the linker fails.
            OSError: the disk refuses.
        """


@dataclass(frozen=True)
class Form:
    """One way of building networks.

    Attributes:
        files: what a network's folder holds of it; the first one tells the form.
        build: makes it of a Relax module, for a target.
        read: the network that `write` put into a folder, by its facts; None where this process cannot run it.
    """

    files: tuple[str, ...]
    build: Callable[[tvm.IRModule, Target], Built]
    read: Callable[[Path, Mapping[str, Any]], Built] | None = None


LIBRARY = Form(LIBRARY_FILES, compile_library, TVMLibrary.read)
PROGRAM = Form(PROGRAM_FILES, compile_program)
FORMS = (LIBRARY, PROGRAM)


def form_of(target: Target) -> Form:
    """A library where TVM's runtime can be installed, else a program of its own."""
    return LIBRARY if target.tvm_runtime else PROGRAM


def form_in(folder: Path) -> Form:
    """The form of the files in a folder; a library's where there is none of any."""
    return next((form for form in FORMS if any((folder / name).exists() for name in form.files)), LIBRARY)
