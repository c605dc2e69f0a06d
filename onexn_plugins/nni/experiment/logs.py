"""What an experiment's logs say of its end."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

# Where the reason stands, the most telling first: the tuner's traceback, what node printed, NNI's own log.
LOGS = ("log/dispatcher.log", "log/nnictl_stderr.log", "log/nnimanager.log")
_ERRORS = ("Traceback", "ERROR", "Error:")
_IN_PASSING = re.compile(r"\[[^]]*\] (INFO|DEBUG) |Experiment \w+ start: ")
_FULL = ("No space left on device", "ENOSPC", "SQLITE_FULL", "disk is full")
# An exception of the tuner ends the thread it works in; its process lives on and waits.
_TUNER_DIED = "ERROR (nni.runtime.msg_dispatcher_base"
_MADE_BY = "_create_algo"  # NNI's function that makes tuner and assessor
_HANDED_OUT = "received command from dispatcher: TR, "
_NOTHING = 2**16  # bytes; NNI's database does not grow by less
_LINES = 4
_TAIL_BYTES = 65536


def last_words(directory: Path, logs: tuple[str, ...] = LOGS) -> str:
    """The lines of a log that say why an experiment ended, on one line; empty where none was written."""
    if disk_is_full(directory):
        return "the disk is full (no space left on device)"
    found = ""
    for name in logs:
        lines = [line.strip() for line in tail(directory / name)
                 if re.search(r"\w", line) and not _IN_PASSING.match(line)]
        errors = [index for index, line in enumerate(lines) if any(sign in line for sign in _ERRORS)]
        if errors:
            return f"{name.rpartition('/')[2]}: {' | '.join(lines[errors[-1]:][-_LINES:])}"
        if lines and not found:
            found = f"{name.rpartition('/')[2]} ends with: {lines[-1]}"
    return found


def tuner_started(directory: Path) -> bool:
    """The tuner is connected, or has already ended."""
    return any("Dispatcher started" in line for line in tail(directory / LOGS[0])) or tuner_raised(directory)


def tuner_raised(directory: Path) -> bool:
    """The tuner, or the assessor, ended with an exception."""
    return any(_TUNER_DIED in line for line in tail(directory / LOGS[0]))


def tuner_was_not_made(directory: Path) -> bool:
    """The tuner's, or the assessor's, own class raised; another start would end as this one did."""
    return any(_MADE_BY in line for line in tail(directory / LOGS[0]))


def handed_out(directory: Path) -> int:
    """How many trials' parameters the tuner has given to NNI, which begins some of them a while later."""
    try:
        with (directory / LOGS[2]).open(encoding="utf-8", errors="replace") as log:
            return sum(_HANDED_OUT in line for line in log)
    except OSError:
        return 0


def disk_is_full(directory: Path) -> bool:
    """Nothing more can be written; or one of the logs, or a file of a trial, speaks of a full disk."""
    if no_room(directory):
        return True
    files = [directory / name for name in LOGS] + list(directory.glob("**/*stderr"))
    return any(sign in line for file in files for line in tail(file) for sign in _FULL)


def no_room(directory: Path) -> bool:
    """Nothing more can be written there; what cannot be written, no log says."""
    try:
        return shutil.disk_usage(directory).free < _NOTHING
    except OSError:
        return False


def tail(file: Path) -> list[str]:
    """The last lines of a file; none where it cannot be read."""
    try:
        with file.open("rb") as opened:
            opened.seek(0, 2)
            opened.seek(max(0, opened.tell() - _TAIL_BYTES))
            return opened.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
