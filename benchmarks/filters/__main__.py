"""python -m benchmarks.filters: which networks NNI's filter pruners really make smaller.

Half of the filters of every convolution but the first are pruned by L1 norm and cut out, on random weights: this is
about graphs, not accuracy. A network counts as cut if the smaller one runs, returns finite outputs of the same shapes,
and learns: one step of training gives every weight a finite gradient.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.record import command_line, record
from benchmarks.filters.network import RATIO, cut
from benchmarks.filters.page import write_readme

RESULTS = Path(__file__).with_name("results") / "filters.json"
NETWORKS = ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "timm/efficientnet_lite0", "efficientnet_b0",
            "mnasnet1_0", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "regnet_x_400mf",
            "regnet_y_400mf", "densenet121", "googlenet", "vgg11", "squeezenet1_1", "shufflenet_v2_x1_0",
            "convnext_tiny")
SECONDS = 240


def main(arguments: list[str] | None = None) -> int:
    """0 where every network was cut, one way or the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filters", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    data = record(command_line("benchmarks.filters")) | {"sparse_ratio": RATIO, "networks": []}
    for network in options.networks:
        row = _in_a_process(network)
        print("  ".join(str(value) for value in row.values()), flush=True)
        data["networks"].append(row)
        options.out.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.out == RESULTS:
        write_readme(data)
    return int(any(row["cut_by"] == "neither" for row in data["networks"]))


def _in_a_process(network: str) -> dict[str, Any]:
    """Whatever goes wrong in one network harms no other."""
    with multiprocessing.get_context("spawn").Pool(1, _quiet) as pool:
        try:
            return pool.apply_async(cut, (network,)).get(SECONDS)
        except multiprocessing.TimeoutError:
            return {"network": network, "cut_by": "neither", "reason": f"not done in {SECONDS} s"}
        except Exception as error:
            return {"network": network, "cut_by": "neither", "reason": f"{type(error).__name__}: {error}"[:200]}


def _quiet() -> None:
    """In this process alone: the table says what a network's warnings would."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())
