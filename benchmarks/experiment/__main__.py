"""python -m benchmarks.experiment comparison --data cifar10-jpeg.zip: NNI chooses among pruners; `tables`: the page.

Start it again to go on: trials whose results are kept report them again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common.record import command_line, record
from onexn_plugins.errors import OneXNError
from onexn_plugins.files import written_aside
from onexn_plugins.training.data.zipped import cache_folder

HERE = Path(__file__).parent
RESULTS = HERE / "results"
COMPARISON = RESULTS / "comparison.json"
SEARCHES = RESULTS / "search.json"


def main(arguments: list[str] | None = None) -> int:
    """0 where every trial succeeded."""
    options = _parser().parse_args(arguments)
    if options.verb == "comparison":
        return _comparison(options)
    if options.verb == "search":
        return _search(options)
    from benchmarks.experiment.page import write_readme

    write_readme(HERE / "README.md", COMPARISON, SEARCHES)
    return 0


def _comparison(options: argparse.Namespace) -> int:
    """Run the experiment, and publish what there is however it ended."""
    from onexn_plugins.nni import run_experiment
    from onexn_plugins.nni.experiment import load_experiment, to_page
    from onexn_plugins.report import write_html

    root = str(HERE.parents[1])  # for the trials, which are scripts
    os.environ |= {"ONEXN_DATA": str(options.data.resolve()), "ONEXN_KEPT": str((options.work / "trials").resolve()),
                   "PYTHONPATH": os.pathsep.join([root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
                   "OMP_NUM_THREADS": "1"}
    config = yaml.safe_load((HERE / "comparison.yaml").read_text(encoding="utf-8"))
    config["trialCodeDirectory"] = str(HERE)
    try:
        result = run_experiment(config, directory=options.work / "experiments", timeout=options.timeout,
                                progress=lambda line: print(line, flush=True))
    except OneXNError as error:
        print(f"benchmarks.experiment: {error}", file=sys.stderr)
        return 2
    print(result.table)
    values = result.to_dict()
    values["record"] |= record(command_line("benchmarks.experiment"))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(options.out) as aside:
        aside.write_text(json.dumps(published(values, options), indent=1) + "\n", encoding="utf-8")
    write_html(to_page(load_experiment(options.out)), options.out.with_suffix(".html"))
    return int(not result.succeeded)


def _search(options: argparse.Namespace) -> int:
    from benchmarks.experiment.search import run
    from onexn_plugins.training import read_zip

    command = command_line("benchmarks.experiment").replace(str(options.data), options.data.name)
    run(read_zip(options.data), options.out, command, lambda line: print(line, flush=True), options.trials)
    return 0


def published(values: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Without the paths of the machine that it ran on."""
    text = json.dumps(values)
    for path, name in ((options.work.resolve(), "WORK"), (options.data.resolve(), options.data.name),
                       (HERE.parents[1], "."), (Path(sys.prefix), ".venv"), (Path.home(), "~")):
        text = text.replace(str(path), name)
    result: dict[str, Any] = json.loads(text)
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiment", description=__doc__)
    verbs = parser.add_subparsers(dest="verb")
    verb = verbs.add_parser("comparison", help="run the trials of comparison.yaml that are missing")
    verb.add_argument("--data", type=Path, required=True, help="zip of train/CLASS/*.jpg and test/CLASS/*.jpg")
    verb.add_argument("--work", type=Path, default=cache_folder() / "experiment",
                      help="folder of what trials leave behind (default %(default)s)")
    verb.add_argument("--timeout", type=float, metavar="SECONDS", help="stop then, and publish what there is")
    verb.add_argument("--out", type=Path, default=COMPARISON, help="the experiment as JSON, with its page beside it")
    verb = verbs.add_parser("search", help="run the searches under a latency that are missing")
    verb.add_argument("--data", type=Path, required=True, help="zip of train/CLASS/*.jpg and test/CLASS/*.jpg")
    verb.add_argument("--trials", type=int, default=12, help="of each search (default %(default)s)")
    verb.add_argument("--out", type=Path, default=SEARCHES, help="the searches as JSON")
    verbs.add_parser("tables", help="fill the README from the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
