"""Counts instructions per inference on ARM: ours, XNNPACK's, ncnn's and MNN's.

    python -m benchmarks.latency setup      once: LiteRT's converter stands in an environment of its own
    python -m benchmarks.arm [--networks mobilenet_v2 timm/efficientnet_lite0] [--pixels 224] [--only onexn]
    python -m benchmarks.arm --cpu cortex-a7 --networks mobilenet_v2 resnet18    the same of 32-bit ARM, ours alone

Emulated, so there are no times: an instruction count is repeatable, and says nothing of caches and memory.
The share of multiply-adds among all instructions stands for the roofline: no code can have more than 100 %.
With --only the other engines' rows of an earlier run are kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.arm import ours, page, peers
from benchmarks.arm.counting import CPU, MORE, Counts, counter
from benchmarks.common.emulation.arm64_root import arm64_machine
from benchmarks.common.record import command_line, record
from benchmarks.latency.environments import DEFAULT_FOLDER, Environments
from onexn_plugins import export_onnx, fold
from onexn_plugins.files import written_aside
from onexn_plugins.report import to_text
from onexn_plugins.torch_pruning import OneXNPruner
from onexn_plugins.zoo import load_model

RATIOS = (0.0, 0.5, 0.75, 0.9)
MILLION = 1e6
CORTEX_A7 = "cortex-a7"  # 32-bit


def main() -> None:
    arguments = _parse()
    rows = []
    for network in arguments.networks:
        with tempfile.TemporaryDirectory(prefix="onexn-arm-") as folder:
            rows += _measure(network, arguments, Path(folder))
    if arguments.only and arguments.output.exists():
        earlier = json.loads(arguments.output.read_text(encoding="utf-8"))["million_instructions_per_inference"]
        rows += [row for row in earlier if row["engine"] != arguments.only or row["network"] not in arguments.networks]
    print(to_text(page.table(rows)))
    result = {**record(command_line("benchmarks.arm")), "cpu": arguments.cpu, "block_size": 4,
              "pixels": arguments.pixels, "million_instructions_per_inference": rows,
              "peers": peers.VERSIONS if arguments.cpu == CPU else {}}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(arguments.output) as unfinished:
        unfinished.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.output in page.PARTS:
        page.publish({page.PARTS[arguments.output]: page.counted(result, arguments.output.name)})


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arm", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2"], help="default: %(default)s")
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--only", choices=tuple(page.TITLES), help="one engine alone")
    parser.add_argument("--peers", type=Path, default=DEFAULT_FOLDER, help="folder of the engines' environments")
    parser.add_argument("--cpu", choices=(CPU, CORTEX_A7), default=CPU, help="cortex-a7 counts this package alone")
    parser.add_argument("--output", type=Path, help="a JSON file; default: the published ones")
    arguments = parser.parse_args()
    if arguments.cpu == CORTEX_A7:
        arguments.only = "onexn"
    arguments.output = arguments.output or (page.RESULTS if arguments.cpu == CPU else page.CORTEX_A7)
    return arguments


def _measure(network: str, arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    counting, pixels = counter(arguments.cpu), arguments.pixels
    shape = f"1,3,{pixels},{pixels}"
    files = {ratio: _export(network, ratio, pixels, folder) for ratio in RATIOS}
    dense, sparse = files[0.0], files[0.75]
    environments = Environments(arguments.peers.resolve())

    def xnnpack(ratio: float, file: Path) -> Counts:
        environments.set_up("litert")
        python = environments.python("litert")
        return peers.xnnpack(counting, arm64_machine(), file, shape, folder, python, sparse=ratio > 0)

    contenders: list[tuple[str, float, Callable[[], Counts]]] = [
        *(("onexn", ratio, lambda file=file: ours.count(counting, arguments.cpu, file, folder))
          for ratio, file in files.items()),
        *(("xnnpack", ratio, lambda ratio=ratio, file=file: xnnpack(ratio, file)) for ratio, file in files.items()),
        ("ncnn", 0.0, lambda: peers.ncnn(counting, arm64_machine(), dense, shape, folder)),
        ("mnn", 0.0, lambda: peers.mnn(counting, arm64_machine(), dense, shape, folder)),
        ("mnn", 0.75, lambda: peers.mnn(counting, arm64_machine(), sparse, shape, folder, "--detectSparseSpeedUp")),
    ]
    rows = []
    for engine, ratio, count in contenders:
        if arguments.only in (None, engine):
            print(f"counting {network} in {engine} at {ratio:.0%}", flush=True)
            rows.append(_row(network, engine, ratio, count()))
    return rows


def _export(network: str, ratio: float, pixels: int, folder: Path) -> Path:
    model = load_model(network)
    x = torch.randn(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    if ratio:
        OneXNPruner(model, x, block_size=4, pruning_ratio=ratio).step()
    return Path(export_onnx(fold(model), x, folder / f"network{ratio * 100:.0f}.onnx"))


def _row(network: str, engine: str, ratio: float, counts: Counts) -> dict[str, Any]:
    millions = {kind: round(number / MILLION, 2) for kind, number in dataclasses.asdict(counts).items()}
    return {"network": network, "engine": engine, "pruning_ratio": ratio, "inferences": MORE, **millions,
            "fma_share": round(counts.fma / counts.all, 3)}


if __name__ == "__main__":
    main()
