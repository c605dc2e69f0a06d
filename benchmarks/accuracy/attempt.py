"""One row, unless it is done or another process does it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.accuracy.claims import claimed
from benchmarks.accuracy.rows import Row, start_of
from benchmarks.accuracy.run import run, start_weights
from onexn_plugins.errors import OneXNError
from onexn_plugins.progress import Progress
from onexn_plugins.training import read_zip
from onexn_plugins.training.data import ImageData

DATA_NAME = "CIFAR-10, JPEG version"


@dataclass(frozen=True)
class Place:
    """Where runs find what they need and leave what they are.

    Attributes:
        data: the zip.
        results: folder of the JSONs and of the weights to start from.
        work: folder of states, logs and ONNX files.
    """

    data: Path
    results: Path
    work: Path

    @cached_property
    def images(self) -> ImageData:
        """Read once, when the first run needs them."""
        return read_zip(self.data)

    def is_done(self, row: Row) -> bool:
        return (self.results / f"{row.name}.json").is_file()

    def check_start(self, row: Row) -> None:
        """Raise OneXNError where the weights are missing that the row starts from."""
        if row.method != "start" and not start_weights(self.results, row).is_file():
            raise OneXNError(row.name, f"its start, {start_of(row).name}, is not there yet",
                             "Do it first: python -m benchmarks.accuracy run --only start")


def attempt(row: Row, place: Place, progress: Progress) -> dict[str, Any] | None:
    """What the run came to; None where it was done before, or another process is at it.

    Raises:
        OneXNError: its start is missing, or the method cannot do what the row asks.
    """
    place.results.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if place.is_done(row) or not stack.enter_context(claimed(place.results / f"{row.name}.claim")) or (
                place.is_done(row)):
            return None
        place.check_start(row)
        stack.enter_context(progress.stage(row.name))
        values = run(row, place.images, DATA_NAME, place.results, place.work, progress.step)
        progress.say(f"top-1 {values['top1']:.2%}, {values['nonzero_weights']} weights")
        return values
