"""python -m benchmarks.accuracy run --data cifar10-jpeg.zip: the runs that are missing; `tables`: what they show.

Start it again to go on, in several processes at a time too, also on machines that share the folders.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

import torch

from benchmarks.accuracy.claims import claimed
from benchmarks.accuracy.page import write
from benchmarks.accuracy.rows import Row, grid, start_of
from benchmarks.accuracy.run import run, start_weights
from onexn_plugins.errors import OneXNError
from onexn_plugins.progress import Progress
from onexn_plugins.training import read_zip
from onexn_plugins.training.data.zipped import cache_folder

RESULTS = Path(__file__).parent / "results"
DATA_NAME = "CIFAR-10, JPEG version"


def main() -> int:
    """The verb, by default `tables`; 1 where a run failed."""
    arguments = _arguments()
    if arguments.verb != "run":
        write(getattr(arguments, "results", RESULTS))
        return 0
    torch.set_num_threads(arguments.threads)
    arguments.results.mkdir(parents=True, exist_ok=True)
    try:
        return _run(arguments)
    except OneXNError as error:
        print(f"benchmarks.accuracy: {error}", file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    progress, failed = Progress(), 0
    data = None
    for row in grid():
        if arguments.only not in row.name or _is_done(row, arguments.results):
            continue
        with ExitStack() as stack:
            if not stack.enter_context(claimed(arguments.results / f"{row.name}.claim")) or _is_done(
                    row, arguments.results):
                continue
            if row.method != "start" and not start_weights(arguments.results, row).is_file():
                progress.say(f"{row.name}: its start, {start_of(row).name}, is not there yet")
                continue
            stack.enter_context(progress.stage(row.name))
            data = data or read_zip(arguments.data)
            try:
                values = run(row, data, DATA_NAME, arguments.results, arguments.work, progress.step)
            except OneXNError as error:
                failed += 1
                progress.say(str(error))
                continue
            progress.say(f"top-1 {values['top1']:.2%}, {values['nonzero_weights']} weights")
    return int(bool(failed))


def _is_done(row: Row, results: Path) -> bool:
    return (results / f"{row.name}.json").is_file()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    verbs = parser.add_subparsers(dest="verb")
    verb = verbs.add_parser("run", help="do the runs that are missing")
    verb.add_argument("--data", type=Path, required=True, help="zip of train/CLASS/*.jpg and test/CLASS/*.jpg")
    verb.add_argument("--results", type=Path, default=RESULTS, help="folder of the runs' JSONs (default %(default)s)")
    verb.add_argument("--work", type=Path, default=cache_folder() / "accuracy",
                      help="folder of states, logs and ONNX files (default %(default)s)")
    verb.add_argument("--only", default="", metavar="TEXT", help="only runs whose name holds this")
    verb.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    tables = verbs.add_parser("tables", help="fill the README and draw the figures from the runs")
    tables.add_argument("--results", type=Path, default=RESULTS, help="folder of the runs' JSONs (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
