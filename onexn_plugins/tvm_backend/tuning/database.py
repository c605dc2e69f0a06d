"""What was measured, as a JSON file that grows by one trial at a time and serves any network and machine.

    {"format": "onexn-plugins tuning", "format_version": 1, "versions": {...},
     "entries": [{"target": {"name", "cpu", "lanes", "threads", "emulated"}, "problem": "conv ...", "default": CHOICE,
                  "choice": CHOICE, "trials": [{"choice": CHOICE, "second", "pairs", "default_us", "us", ...}]}]}

An entry answers for one processor, one problem and one default: where another version of the package would choose
another tile by itself, an old comparison says nothing.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onexn_plugins.errors import OneXNError
from onexn_plugins.files import check_writable, written_aside
from onexn_plugins.tvm_backend.kernels.problem import Choice, Tile
from onexn_plugins.tvm_backend.processors import Target, vector_unit
from onexn_plugins.tvm_backend.tuning.decision import Trial, winner

FORMAT, FORMAT_VERSION = "onexn-plugins tuning", 1
TUNE_AGAIN = "Tune again into a new file with `onexn tune MODEL.onnx --database NEW.json`"
# No register file holds more; larger numbers are damage.
_LARGEST_BLOCK, _MOST_VECTORS = 32, 32


@dataclass(frozen=True)
class Machine:
    """Where times were taken.

    Attributes:
        name, cpu, lanes: of the target.
        threads: that a kernel ran on.
        emulated: an emulator's times choose nothing; they are kept to go on with, and for tests.
    """

    name: str
    cpu: str
    lanes: int
    threads: int = 1
    emulated: bool = False

    @classmethod
    def of(cls, target: Target, threads: int, emulated: bool = False) -> Machine:
        return cls(target.name, target.cpu, vector_unit(target).lanes, threads, emulated)

    def __str__(self) -> str:
        emulated = ", emulated" if self.emulated else ""
        return f"{self.name} ({self.cpu}, {self.lanes} lanes, {self.threads} thread(s){emulated})"


@dataclass(frozen=True)
class Entry:
    """One problem on one machine.

    Attributes:
        machine: where it was measured.
        problem: in the words of problem_of.
        default: what is chosen without tuning.
        trials: in the order they were made.
    """

    machine: Machine
    problem: str
    default: Choice
    trials: tuple[Trial, ...] = ()

    @property
    def choice(self) -> Choice:
        """The default, or the candidate that proved faster."""
        best = winner(self.trials)
        return best.choice if best else self.default


_Key = tuple[Machine, str, Choice]


class Database:
    """Entries by machine, problem and default."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[_Key, Entry] = {}

    @classmethod
    def read(cls, path: str | Path) -> Database:
        """The database in this file.

        Raises:
            OneXNError: there is none, or it is damaged or of another version.
        """
        database = cls(Path(path))
        for entry in _entries(database.path):
            database.put(entry)
        return database

    @classmethod
    def open(cls, path: str | Path) -> Database:
        """As read; an empty one where there is no such file, which then can be written.

        Raises:
            OneXNError: as read, or the file cannot be written.
        """
        return cls.read(path) if check_writable(path).exists() else cls(Path(path))

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries.values())

    def find(self, machine: Machine, problem: str, default: Choice) -> Entry | None:
        """What is known of this problem there."""
        return self._entries.get((machine, problem, default))

    def put(self, entry: Entry) -> None:
        """Take in an entry in the place of an earlier one."""
        self._entries[entry.machine, entry.problem, entry.default] = entry

    def save(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            OneXNError: the disk refuses.
        """
        whole = {"format": FORMAT, "format_version": FORMAT_VERSION, "versions": versions(),
                 "entries": [_written(entry) for entry in self._entries.values()]}
        with written_aside(self.path) as unfinished:
            unfinished.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """The packages whose kernels were measured; with others the times would be others."""

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
            return "none"

    return {package: version(package) for package in ("onexn-plugins", "apache-tvm")}


def _written(entry: Entry) -> dict[str, Any]:
    return {"target": dataclasses.asdict(entry.machine), "problem": entry.problem, "default": _plain(entry.default),
            "choice": _plain(entry.choice),
            "trials": [{**dataclasses.asdict(trial), "choice": _plain(trial.choice)} for trial in entry.trials]}


def _plain(choice: Choice) -> dict[str, Any]:
    return {"sparse": choice.sparse, **dataclasses.asdict(choice.tile)}


def _entries(path: Path) -> list[Entry]:
    """The entries of a file, every value checked."""
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OneXNError(str(path), f"cannot be read: {error.strerror}", "Name a file `onexn tune` wrote") from error
    except (ValueError, RecursionError) as error:
        raise OneXNError(str(path), "is no tuning database: it is not JSON", TUNE_AGAIN) from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise OneXNError(str(path), "is no tuning database", "Name a file `onexn tune` wrote")
    if whole.get("format_version") != FORMAT_VERSION:
        raise OneXNError(str(path), f"has format version {whole.get('format_version')!r}, this package reads "
                         f"{FORMAT_VERSION}", TUNE_AGAIN)
    if whole.get("versions") != versions():
        raise OneXNError(str(path), f"was tuned with {whole.get('versions')}, installed are {versions()}", TUNE_AGAIN)
    try:
        return [_entry(_as(found, Mapping)) for found in _as(whole["entries"], list)]
    except (KeyError, TypeError, ValueError) as error:
        raise OneXNError(str(path), "is damaged: an entry is not readable", TUNE_AGAIN) from error


def _entry(found: Mapping[str, Any]) -> Entry:
    machine = Machine(**_typed(found["target"], Machine))
    entry = Entry(machine, _as(found["problem"], str), _choice(found["default"]),
                  tuple(_trial(trial) for trial in _as(found["trials"], list)))
    if _choice(found["choice"]) != entry.choice:
        raise ValueError("the choice is not what the trials say")
    return entry


def _trial(found: Any) -> Trial:
    return Trial(**_typed({**found, "choice": _choice(found["choice"])}, Trial))


def _choice(found: Any) -> Choice:
    sparse, tile = bool(_as(found["sparse"], bool)), {key: found[key] for key in found if key != "sparse"}
    choice = Choice(sparse, Tile(**_typed(tile, Tile)))
    if not (1 <= choice.tile.block_size <= _LARGEST_BLOCK and 1 <= choice.tile.vectors <= _MOST_VECTORS):
        raise ValueError(f"no tile: {choice}")
    return choice


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "float": (float, int), "bool": (bool,), "str | None": (str, type(None)),
    "Choice": (Choice,),
}


def _typed(found: Any, kind: Any) -> dict[str, Any]:
    """The fields of a dataclass out of a JSON object: exactly these, and of their types."""
    types = {field.name: _TYPES[str(field.type)] for field in dataclasses.fields(kind)}
    if set(_as(found, Mapping)) != set(types):
        raise ValueError(f"not the fields of {kind.__name__}: {sorted(found)}")
    for name, value in found.items():
        if not isinstance(value, types[name]) or (isinstance(value, bool) and bool not in types[name]):
            raise TypeError(f"{name} is {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}")
    return dict(found)


def _as(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} where {kind} belongs")
    return value
