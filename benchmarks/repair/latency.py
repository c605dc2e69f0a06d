"""Milliseconds of the ladder's networks, each compiled: `python -m benchmarks.repair.latency LADDER.json FOLDER`.

FOLDER is what `python -m benchmarks.repair --networks FOLDER` left. One thread, one image, all in turns in one process.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.common.record import record
from benchmarks.repair.ladder import FILTERS, ORDER
from benchmarks.repair.networks import NETWORKS
from benchmarks.repair.page import DENSE, FOLDER, publish
from onexn_plugins import export_onnx
from onexn_plugins.errors import OneXNError
from onexn_plugins.files import written_aside
from onexn_plugins.timing import interleave
from onexn_plugins.tvm_backend import compile_model

ROUNDS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ladder", type=Path, help="results/NETWORK_1xN_SHARE.json")
    parser.add_argument("networks", type=Path, metavar="FOLDER", help="of --networks")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(default %(default)s)")
    arguments = parser.parse_args()
    command = f"python -m benchmarks.repair.latency results/{arguments.ladder.name} FOLDER --rounds {arguments.rounds}"
    content = record(command) | {"of": arguments.ladder.name, "rounds": arguments.rounds}
    name = arguments.ladder.name.partition("_1x")[0]
    paths = {step: path for step in ORDER if (path := arguments.networks / f"{ORDER.index(step)}.onnx").exists()}
    if not paths:
        raise OneXNError(str(arguments.networks), "holds none of the ladder's networks",
                         "Run python -m benchmarks.repair --networks FOLDER first")
    with tempfile.TemporaryDirectory() as folder:
        dense = Path(folder) / "dense.onnx"
        export_onnx(NETWORKS[name][1](), torch.zeros(shape(next(iter(paths.values())))), dense)
        content["networks"] = timed({DENSE: dense, **paths}, arguments.rounds)
    path = FOLDER / "results/latency" / arguments.ladder.name
    path.parent.mkdir(exist_ok=True)
    with written_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n")
    publish()


def shape(path: Path) -> tuple[int, ...]:
    """Of the input of an ONNX file."""
    return tuple(each.dim_value for each in onnx.load(path).graph.input[0].type.tensor_type.shape.dim)


def timed(networks: Mapping[str, Path], rounds: int) -> dict[str, Any]:
    """Step -> its milliseconds, and how many times faster than dense and than channels alone it is, round by round."""
    run = {}
    for step, path in networks.items():
        print(f"compiling: {step}", flush=True)
        image = np.random.default_rng(0).standard_normal(shape(path), dtype=np.float32)
        run[step] = partial(compile_model(str(path), threads=1).run, image)
    timings = interleave(run, rounds=rounds)
    others = {key: other for key, other in (("over_dense", DENSE), ("over_channels", FILTERS)) if other in run}
    return {step: {"ms": vars(timings.milliseconds(step))} | {
        key: vars(timings.speedup(step, other)) for key, other in others.items()} for step in run}


if __name__ == "__main__":
    try:
        main()
    except OneXNError as error:
        sys.exit(f"benchmarks.repair.latency: {error}")
