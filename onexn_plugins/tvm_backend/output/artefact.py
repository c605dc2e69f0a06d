"""A compiled network on disk: one folder with its library or program, their description and checksums.

    NETWORK/network.so       what TVM's runtime loads
    NETWORK/weights.bin      the beginning of the memory it works on; for a target without such a runtime instead
    NETWORK/network          a program to run there, with libnetwork.a and network.h to build another one
    NETWORK/metadata.json    inputs, outputs, layers, target, versions
    NETWORK/SHA256SUMS       of all these, in the format of `sha256sum --check`

The folder appears whole or not at all. The checksums tell damage, not malice: loading a library runs its code, so load
only artefacts from people you trust.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.output.forms import Built, form_in, form_of
from onexn_plugins.tvm_backend.output.linker import compiler
from onexn_plugins.tvm_backend.output.static_program.build import PROGRAM_FILES
from onexn_plugins.tvm_backend.output.tvm_library import LIBRARY, WEIGHTS
from onexn_plugins.tvm_backend.processors import Target, why_not_here

# Up to version 2 code wanted its inputs aligned; up to version 3 targets spelled out their vector units.
FORMAT, FORMAT_VERSION = "onexn-plugins network", 4
METADATA, CHECKSUMS = "metadata.json", "SHA256SUMS"
# Room asked for before LLVM and the linker write code.
CODE_BYTES = 32 << 20
HASHED_AT_ONCE = 1 << 20
REBUILD = "Compile the network again with compile_model(...).save(path)"


@dataclass(frozen=True)
class Artefact:
    """A verified artefact.

    Attributes:
        folder: where it lies.
        target: the processor it was compiled for; a "host" artefact names that host's processor.
        metadata: what `write` was given, plus "versions" of the packages that made it.
    """

    folder: Path
    target: Target
    metadata: dict[str, Any]

    @property
    def library(self) -> Path:
        """The shared library: `tvm.runtime.load_module` takes it. Its weights lie beside it.

        Errors:
            OneXNError: there is none, the network is a program of its own.
        """
        if not self.target.tvm_runtime:
            raise OneXNError(str(self.folder), f"is a program for {self.target.name!r}, no library for TVM's runtime",
                             f"Copy the folder to the board and run {self.folder.name}/{PROGRAM_FILES[0]} there")
        return self.folder / LIBRARY

    @property
    def weights(self) -> Path:
        """The beginning of the memory that the library works on."""
        return self.library.with_name(WEIGHTS)

    @property
    def memory_bytes(self) -> int:
        """How much memory that is."""
        return int(self.metadata["memory_bytes"])

    def network(self) -> Built:
        """The network, loaded.

        Errors:
            OneXNError: it is a program of its own.
            OSError, RuntimeError, ValueError: the files are not what `write` wrote.
        """
        read = form_of(self.target).read
        assert read is not None, "library refuses such a target"
        return read(self.library.parent, self.metadata)


def write(path: str | Path, network: Built, target: Target, metadata: Mapping[str, Any]) -> Path:
    """Links a compiled network and writes its artefact; an older artefact at `path` is replaced.

    Args:
        path: the folder to write.
        network: what the target's form built.
        target: what it was compiled for.
        metadata: JSON-ready; "inputs" and "outputs" are lists of {"name", "shape", "dtype"}, in call order.

    Errors:
        OneXNError: something else lies at `path`, nothing here links for the target, or the disk refuses. Nothing is
        left behind, and an older artefact stays as it was.
    """
    compiler(target)  # refuses here, before anything is touched, where nothing links for the target
    path = Path(path)
    if path.exists() and not (path / METADATA).is_file():
        raise OneXNError(str(path), "exists and is no saved network", "Name a new folder")
    whole = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "target": dataclasses.asdict(target),
        **network.facts,
        **metadata,
        "versions": _versions(),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as aside:
            folder = Path(aside) / "new"
            folder.mkdir()
            for place in (folder, Path(tempfile.gettempdir())):  # where objects and the library are written
                _check_room(place, network)
            names = ([str(tensor["name"]) for tensor in whole[role]] for role in ("inputs", "outputs"))
            network.write(folder, target, *names)
            (folder / METADATA).write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            (folder / CHECKSUMS).write_bytes(_checksums(folder))
            _move(folder, path, Path(aside) / "old")
    except OSError as error:
        raise OneXNError(str(path), f"cannot be written: {error}", "Name a folder on a disk with room") from error
    return path


def read(path: str | Path, *, run_here: bool = True) -> Artefact:
    """Opens an artefact after checking every byte of it.

    Args:
        path: its folder.
        run_here: also refuse one that this machine's processor or installed TVM cannot run. False is for an artefact on
            its way to a board.

    Errors:
        OneXNError: it is missing, damaged, of another format version, or not for this machine.
    """
    folder = Path(path)
    try:
        if (folder / CHECKSUMS).read_bytes() != _checksums(folder):
            raise OneXNError(str(path), "is damaged: its files do not match its checksums", REBUILD)
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise OneXNError(str(path), f"is no saved network: it has no {name}", "Name a folder .save wrote") from error
    except OSError as error:
        raise OneXNError(str(path), f"cannot be read: {error}", "Name a folder .save wrote") from error
    except (ValueError, RecursionError) as error:
        raise OneXNError(str(path), "is no saved network: its metadata is not JSON", REBUILD) from error
    artefact = Artefact(folder, _check_format(path, metadata), metadata)
    if run_here:
        _check_runs_here(artefact)
    return artefact


def _check_room(folder: Path, network: Built) -> None:
    """Raise OSError unless the disk takes what LLVM and the linker write: LLVM ends the process when it cannot."""
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, CODE_BYTES + network.written_bytes)


def _checksums(folder: Path) -> bytes:
    """What SHA256SUMS holds for the folder's other files."""
    names = (*form_in(folder).files, METADATA)
    return "".join(f"{_sha256(folder / name)}  {name}\n" for name in names).encode()


def _sha256(path: Path) -> str:
    """Of a file that may be larger than the memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(HASHED_AT_ONCE):
            digest.update(chunk)
    return digest.hexdigest()


def _move(new: Path, path: Path, old: Path) -> None:
    """Moves a finished folder to its place; what was there goes to `old`, or back if the move fails."""
    replaces = path.exists()
    if replaces:
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if replaces:
            shutil.move(old, path)
        raise


def _check_format(path: str | Path, metadata: Any) -> Target:
    """The target, once the metadata has proved to be of this format."""
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise OneXNError(str(path), "was not written by this package", "Name a folder .save wrote")
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise OneXNError(str(path), f"has format version {version!r}, this package reads {FORMAT_VERSION}", REBUILD)
    try:
        target = Target(**{**metadata["target"], "features": tuple(metadata["target"]["features"])})
        known = all(isinstance(text, str) for text in (target.name, target.triple, target.cpu, *target.features))
        known = known and all(_is_tensor(tensor) for tensor in (*metadata["inputs"], *metadata["outputs"]))
        known = known and (not target.tvm_runtime or (
            _is_size(metadata["memory_bytes"]) and metadata["memory_bytes"] > 0))
    except (KeyError, TypeError, ValueError):
        known = False
    if not known or not isinstance(metadata.get("versions"), dict):
        raise OneXNError(str(path), "has metadata this package does not know", REBUILD)
    return target


def _is_tensor(entry: Any) -> bool:
    """Whether it is {"name": str, "shape": [integers, 0 of what is empty], "dtype": str}."""
    if not isinstance(entry, dict) or not isinstance(entry.get("shape"), list):
        return False
    named = isinstance(entry.get("name"), str) and isinstance(entry.get("dtype"), str)
    return named and all(map(_is_size, entry["shape"]))


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _check_runs_here(artefact: Artefact) -> None:
    """Refuses a library this process could not run."""
    reason = why_not_here(artefact.target)
    if reason:
        name = artefact.target.name
        there = "onexn deploy" if artefact.target.tvm_runtime else f"scp and start {PROGRAM_FILES[0]!r} in it"
        fix = f"Send it to its board with {there}, or compile with target='host'"
        raise OneXNError(str(artefact.folder), f"was compiled for {name!r}: {reason}", fix)
    made, here = str(artefact.metadata["versions"].get("apache-tvm")), _versions()["apache-tvm"]
    if made.split(".")[:2] != here.split(".")[:2]:
        raise OneXNError(str(artefact.folder), f"was compiled by TVM {made}; TVM {here} is installed", REBUILD)


def _versions() -> dict[str, str]:
    """What is installed, by package; "none" for what is not."""

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "none"

    return {package: version(package) for package in ("onexn-plugins", "apache-tvm", "apache-tvm-ffi")}
