"""`onexn experiment`: an NNI experiment from start to end."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from onexn_plugins.cli.common import Result
from onexn_plugins.progress import Progress

if TYPE_CHECKING:
    from onexn_plugins.nni.experiment import ExperimentResult

HELP = "Run an NNI experiment: check it, start it, watch it, stop it, and show what its trials reported."
EXAMPLE = "onexn experiment experiment.yaml --max-trials 6 --directory experiments"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the experiment's YAML, as nnictl takes it")
    parser.add_argument("--max-trials", type=int, metavar="COUNT", help="in place of the file's maxTrialNumber")
    parser.add_argument("--directory", type=Path, metavar="FOLDER",
                        help="where experiments are kept (default: the file's, else ~/nni-experiments)")
    parser.add_argument("--port", type=int, help="of NNI's page and REST (default: a free one)")
    parser.add_argument("--listen", metavar="ADDRESS", help="where those listen, without a password (default: this "
                        "machine alone; 0.0.0.0, that is everywhere, if trials run on other machines)")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="for the whole experiment (default: none)")


def run(arguments: argparse.Namespace) -> Result:
    """Exit code 1 if a trial failed, 2 if the experiment did, 128 and its number after a signal."""
    from onexn_plugins.nni.experiment import run_experiment

    def follow(say: Progress | None) -> ExperimentResult:
        return run_experiment(
            arguments.file, directory=arguments.directory, max_trials=arguments.max_trials, port=arguments.port,
            listen=arguments.listen, timeout=arguments.timeout,
            **({} if say is None else {"progress": lambda line: (say.say if "http" in line else say.step)(line)}))

    if arguments.json:
        result = follow(None)
    else:
        progress = Progress(stream=sys.stderr)
        with progress.stage(f"running {arguments.file}"):
            result = follow(progress)
    text = (f"{result.table}\n\nexperiment {result.id}: {result.directory}\n"
            f"as a page: onexn report {result.directory} -o FILE.html")
    return Result(result.to_dict(), text, _exit_code(result))


def _exit_code(result: ExperimentResult) -> int:
    if result.ended.startswith("SIG"):
        return 128 + signal.Signals[result.ended]
    if result.ended != "done":
        return 2
    return 0 if result.succeeded else 1
