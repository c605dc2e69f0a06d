"""python -m benchmarks.networks.tasks: detection, segmentation, restoration, text, audio, keypoints, attention.

Each network is pruned through torch-pruning's adapter and NNI's, with its channels moved first, compiled, compared with
torch in float64 and timed in turns with onnxruntime. Each runs in a process of its own. Results are written after every
network; with --missing, those that the results already hold are left out, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.common.record import commit, record
from benchmarks.networks.page import Row
from benchmarks.networks.tasks.page import summary, write
from benchmarks.networks.tasks.zoo import TASKS, Task

RESULTS = Path(__file__).parents[1] / "results" / "tasks.json"
TOLERANCE = 1e-4
SECONDS = 3600  # for one network
COMMAND = "python -m benchmarks.networks.tasks"


def main(arguments: list[str] | None = None) -> int:
    """0 where every network is right."""
    options = _options(arguments)
    rows: list[Row] = json.loads(options.out.read_text())["networks"] if options.out.exists() else []
    for name in options.networks:
        if options.missing and any(row["network"] == name for row in rows):
            continue
        row = _run(TASKS[name], options) | {"commit": commit()}
        rows = sorted([other for other in rows if other["network"] != name] + [row], key=_order)
        print(*(row.get(key, "") for key in ("network", "state", "said", "difference_exact", "adapters", "faster",
                                             "without", "without_share", "compile_processor_seconds")), flush=True)
        write(options.out, {**record(COMMAND), "block_size": 4, "ratio": options.ratio, "rounds": options.rounds,
                            "tolerance": TOLERANCE, "networks": rows})
    print(summary(rows))
    return int(any(row["state"] != "right" for row in rows))


def _run(task: Task, options: argparse.Namespace) -> Row:
    """"right", "wrong", or what ended the process."""
    known: Row = {"network": task.name, "task": task.task, "shape": list(task.shape), "full": task.full}
    try:
        done = subprocess.run([sys.executable, "-m", "benchmarks.networks.tasks.case", task.name, str(options.ratio),
                               str(options.rounds)], capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {**known, "state": "not done", "said": f"in {SECONDS} s"}
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {**known, "state": f"ended with {done.returncode}", "said": said[-1] if said else "nothing"}
    row = json.loads(done.stdout.splitlines()[-1])
    return {**known, "state": "right" if row["difference_exact"] <= TOLERANCE else "wrong", **row}


def _order(row: Row) -> int:
    return list(TASKS).index(row["network"])


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=tuple(TASKS), metavar="NETWORK", default=tuple(TASKS),
                        help=f"all of {', '.join(TASKS)}")
    parser.add_argument("--ratio", type=float, default=0.75, help="of blocks removed")
    parser.add_argument("--rounds", type=int, default=15, help="turns of every engine")
    parser.add_argument("--missing", action="store_true", help="only networks that the results do not hold")
    parser.add_argument("--out", type=Path, default=RESULTS, help="tasks.json of the results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
