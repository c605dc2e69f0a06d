"""Files that are whole or absent: written aside, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from onexn_plugins.errors import OneXNError, first_line


def check_writable(path: str | os.PathLike[str]) -> Path:
    """The path; OneXNError before any work is done where its folder does not exist or it is a folder itself."""
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
        raise OneXNError("path", f"must be the path of a file, got {path!r}", "Give a name such as model.safetensors")
    path = Path(path)
    if not os.path.isdir(path.parent):  # which, unlike Path.is_dir, also takes names that are too long
        raise OneXNError(str(path), "its folder does not exist", "Create the folder first")
    if os.path.isdir(path):
        raise OneXNError(str(path), "is a folder", "Give the path of a file")
    return path


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it takes `path`'s place if the block succeeds, and vanishes if it fails.

    Raises:
        OneXNError: the folder cannot be written, or the disk is full.
    """
    try:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield folder / path.name
        os.replace(folder / path.name, path)
    except (OSError, SafetensorError) as error:  # the second one is a full disk, too
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unwritable(path: Path, error: Exception) -> OneXNError:
    reason = error.strerror if isinstance(error, OSError) else first_line(error)
    return OneXNError(str(path), f"cannot be written: {reason}", "Check the folder's rights and the free space")
