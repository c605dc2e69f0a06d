"""The command of a trial on this machine: there is such a program, and `python` is this very one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from onexn_plugins.errors import OneXNError

_ASSIGNMENT = r"[A-Za-z_]\w*=(?:'[^']*'|\"[^\"]*\"|[^\s'\"])*"
_LEADING_PYTHON = re.compile(rf"^(\s*(?:{_ASSIGNMENT}\s+)*)python3?(?=\s|$)")
_PLAIN = re.compile(r"[\w./+-]+")  # what the shell takes as it stands


def check_command(name: str, command: str, folder: Path) -> None:
    """Raise OneXNError where the program, or the Python file it is given, is not there.

    Args:
        name: of the configuration, for the message.
        command: trialCommand, which a shell runs.
        folder: trialCodeDirectory, in which it is run.
    """
    where = f"{name}: trialCommand"
    words = _words(command)
    while words and re.match(r"[A-Za-z_]\w*=", words[0]):
        words.pop(0)
    if not words:
        raise OneXNError(where, "is empty", "For example python trial.py")
    if _PLAIN.fullmatch(words[0]) and not _runs(words[0], folder):
        raise OneXNError(where, f"there is no program {words[0]!r}", "Check its name and PATH")
    script = next((word for word in words[1:] if not word.startswith("-")), "")
    if script.endswith(".py") and words[0] != "cd" and not (folder / script).is_file():
        raise OneXNError(where, f"there is no file {folder / script}", "Check trialCodeDirectory")


def on_this_python(command: str) -> str:
    """The command with this very Python where it starts with `python`, behind variables or not."""
    return _LEADING_PYTHON.sub(lambda found: found[1] + shlex.quote(sys.executable), command)


def _runs(program: str, folder: Path) -> bool:
    """The shell finds it: as a file, on PATH, or among its own words such as cd."""
    if "/" in program:
        return os.access(folder / program, os.X_OK) and (folder / program).is_file()
    shell = shutil.which("bash") or shutil.which("sh")
    return shutil.which(program) is not None or shell is None or not subprocess.run(
        [shell, "-c", 'command -v "$1"', shell, program], capture_output=True, check=False).returncode


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # a shell may read more than shlex does
        return command.split()
