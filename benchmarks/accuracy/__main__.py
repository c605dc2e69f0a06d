"""python -m benchmarks.accuracy run --data cifar10-jpeg.zip: the runs that are missing; `tables`: what they show.

Start it again to go on, in several processes at a time too, also on machines that share the folders. `experiment` does
the same over NNI's services, for machines that share nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.accuracy.page import write
from benchmarks.accuracy.rows import Row, grid
from onexn_plugins.errors import OneXNError
from onexn_plugins.progress import Progress
from onexn_plugins.training.data.zipped import cache_folder

if TYPE_CHECKING:
    from benchmarks.accuracy.attempt import Place

RESULTS, ROOT = Path(__file__).parent / "results", Path(__file__).parents[2]


def main() -> int:
    """The verb, by default `tables`; 1 where a run failed, 2 for bad input."""
    arguments = _arguments()
    if arguments.verb in (None, "tables"):
        write(getattr(arguments, "results", RESULTS))
        return 0
    from benchmarks.accuracy.experiment import Service, read_service, run_grid, run_trial  # tables need no toolkits

    torch.set_num_threads(arguments.threads)
    try:
        if arguments.verb == "trial":
            return run_trial(_place(arguments), Progress())
        rows = [row for row in grid() if arguments.only in row.name]
        if arguments.verb == "run":
            return _run(rows, _place(arguments))
        service = Service(read_service(arguments.service), arguments.checkout, arguments.python, arguments.concurrency)
        return run_grid(rows, _place(arguments), service, arguments.threads, arguments.directory, Progress())
    except OneXNError as error:
        print(f"benchmarks.accuracy: {error}", file=sys.stderr)
        return 2


def _run(rows: list[Row], place: Place) -> int:
    from benchmarks.accuracy.attempt import attempt

    progress, failed = Progress(), 0
    for row in rows:
        try:
            attempt(row, place, progress)
        except OneXNError as error:
            failed += 1
            progress.say(str(error))
    return int(bool(failed))


def _place(arguments: argparse.Namespace) -> Place:
    """A trial runs in another folder, so that paths of this machine are absolute."""
    from benchmarks.accuracy.attempt import Place

    if arguments.verb == "experiment" and arguments.service is None:
        return Place(arguments.data.resolve(), arguments.results.resolve(), arguments.work.resolve())
    return Place(arguments.data, arguments.results, arguments.work)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    verbs = parser.add_subparsers(dest="verb")
    verb = verbs.add_parser("run", help="do the runs that are missing")
    experiment = verbs.add_parser("experiment", help="do them as trials of an NNI experiment")
    for each in (verb, experiment, verbs.add_parser("trial", help="one of them, as NNI asks for it")):
        each.add_argument("--data", type=Path, required=True, help="zip of train/CLASS/*.jpg and test/CLASS/*.jpg")
        each.add_argument("--results", type=Path, default=RESULTS,
                          help="folder of the runs' JSONs (default %(default)s)")
        each.add_argument("--work", type=Path, default=cache_folder() / "accuracy",
                          help="folder of states, logs and ONNX files (default %(default)s)")
        each.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    for each in (verb, experiment):
        each.add_argument("--only", default="", metavar="TEXT", help="only runs whose name holds this")
    experiment.add_argument("--service", type=Path, metavar="FILE", help="YAML of NNI's trainingService; paths are "
                            "then those of its machines (default: processes of this machine)")
    experiment.add_argument("--concurrency", type=int, default=1, help="trials at a time (default 1)")
    experiment.add_argument("--checkout", type=Path, default=ROOT, help="this project, on the trials' machines")
    experiment.add_argument("--python", default=sys.executable, help="with its environment, on the trials' machines")
    experiment.add_argument("--directory", type=Path, help="where NNI keeps experiments (default ~/nni-experiments)")
    tables = verbs.add_parser("tables", help="fill the README and draw the figures from the runs")
    tables.add_argument("--results", type=Path, default=RESULTS, help="folder of the runs' JSONs (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
