"""What happened, line by line: JSON in log.jsonl, and the same numbers for TensorBoard where it is installed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from onexn_plugins.errors import OneXNError
from onexn_plugins.files import written_aside

NAME = "log.jsonl"


class Log:
    """Appends events; one line each, with the optimizer step it belongs to.

    Args:
        folder: of the run.
        step: the step the run goes on from; later lines, of steps that are now done again, are dropped.
        tensorboard: write TensorBoard's files too, into folder/tensorboard.
    """

    def __init__(self, folder: Path, step: int = 0, tensorboard: bool = False) -> None:
        self.path = folder / NAME
        kept = [line for line in read_lines(self.path) if line.get("step", 0) <= step] if step else []
        with written_aside(self.path) as aside:
            aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._board = _board(folder / "tensorboard", step) if tensorboard else None

    def write(self, event: str, step: int, **values: Any) -> None:
        """One event.

        Raises:
            OneXNError: the line cannot be written.
        """
        line = json.dumps({"event": event, "step": step, **values}) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise OneXNError(str(self.path), f"cannot be written: {error.strerror}",
                             "Check the folder's rights and the free space; the same command then goes on") from error
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    self._board.add_scalar(f"{event}/{name}", value, step)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The events of a log; a line that a killed process left unfinished is passed over."""
    if not os.path.isfile(path):
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        return None
    return SummaryWriter(str(folder), purge_step=step or None)  # type: ignore[no-untyped-call]
