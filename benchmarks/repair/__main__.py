"""The ladder of repair: `python -m benchmarks.repair --data DIR` writes results/NETWORK_1xN_SHARE.json."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.record import commit, record
from benchmarks.repair.figures import accuracy, paired, written
from benchmarks.repair.ladder import ORDER, Ladder, zeros
from benchmarks.repair.networks import NETWORKS
from benchmarks.repair.page import publish
from benchmarks.repair.photos import ranks
from onexn_plugins import export_onnx
from onexn_plugins.errors import OneXNError
from onexn_plugins.files import written_aside
from onexn_plugins.measurement import measure

STEPS = 600  # of distillation: about twelve minutes of CPU for EfficientNet-Lite0
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR",
                        help="one sub-folder of photos per ImageNet class; half calibrates, half judges; for "
                             "mobilenet_v2_small the zip that benchmarks.accuracy takes")
    parser.add_argument("--network", choices=NETWORKS, default="efficientnet_lite0", help="(default %(default)s)")
    parser.add_argument("--share", type=float, default=0.5, help="of the multiply-adds of 1×1 layers (default 0.5)")
    parser.add_argument("--block-size", type=int, default=4, metavar="N")
    parser.add_argument("--distil", type=int, default=STEPS, metavar="STEPS",
                        help="of distillation (default %(default)s)")
    parser.add_argument("--only", choices=ORDER, nargs="+", default=ORDER, metavar="STEP", help="these rungs alone")
    parser.add_argument("--repaired", type=Path, metavar="FOLDER",
                        help="where repaired networks are kept, from which distilled rungs go on")
    parser.add_argument("--networks", type=Path, metavar="FOLDER", help="where every rung's network goes, as ONNX")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the JSON goes (default: results/)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {line}", flush=True)

    read, make, title = NETWORKS[arguments.network]
    photos, dense = read(arguments.data), make()
    say(f"{photos.calibrate.count} photos calibrate, {len(photos.labels)} judge")
    name = f"{arguments.network}_1x{arguments.block_size}_{100 * arguments.share:.0f}.json"
    path = arguments.out or RESULTS / name
    command = (f"python -m benchmarks.repair --network {arguments.network} --data DATA --share {arguments.share:g} "
               f"--block-size {arguments.block_size} --distil {arguments.distil}")
    content: dict[str, Any] = record(command) | {
        "network": title,
        "block_size": arguments.block_size, "share": arguments.share,
        "calibrated_on": photos.calibrate.count, "reported_on": int(photos.reported.sum()), "rungs": []}
    baseline = ranks(dense, photos)
    content["dense_macs"] = measure(dense, arguments.block_size, photos.judge[:1]).dense_macs
    content["dense"] = accuracy(baseline[photos.reported]) | {"ranks": written(baseline)}
    content["rungs"] = climbed(path, content)
    ladder = Ladder(dense, photos, arguments.share, arguments.block_size, arguments.distil, say, arguments.repaired)
    done = {rung["step"] for rung in content["rungs"]}
    for title, model, ratios, seconds in ladder.rungs(done, arguments.only):
        if arguments.networks is not None:
            arguments.networks.mkdir(parents=True, exist_ok=True)
            export_onnx(model, photos.judge[:1], arguments.networks / f"{ORDER.index(title)}.onnx",
                        block_size=arguments.block_size)
        places = ranks(model, photos)
        report = measure(model, arguments.block_size, photos.judge[:1])
        content["rungs"].append({
            "step": title, "commit": commit(), "command": command, **accuracy(places[photos.reported]),
            "chosen_on": accuracy(places[~photos.reported]),
            "minus_dense": paired(places[photos.reported], baseline[photos.reported]), "macs": report.macs,
            "dense_macs": content["dense_macs"], "blocks_gone": zeros(model, arguments.block_size),
            "cpu_seconds": round(seconds, 1), "ratios": ratios, "ranks": written(places)})
        content["rungs"].sort(key=lambda rung: ORDER.index(rung["step"]))
        with written_aside(path) as aside:
            aside.write_text(json.dumps(content, indent=1) + "\n")
        if arguments.out is None:
            publish()
        say(f"{title}: top-1 {100 * content_of(content, title)['top1']['value']:.1f} on the photos reported, "
            f"{100 * float((places < 1).double().mean()):.1f} on all, {seconds:.0f} s of CPU")


def climbed(path: Path, content: dict[str, Any]) -> list[dict[str, Any]]:
    """Rungs that the file holds already, if it is of the same network and photos; a run goes on behind them."""
    if not path.exists():
        return []
    before = json.loads(path.read_text(encoding="utf-8"))
    same = ("network", "block_size", "share", "calibrated_on", "reported_on", "dense")
    return before["rungs"] if all(before.get(key) == content[key] for key in same) else []


def content_of(content: dict[str, Any], step: str) -> dict[str, Any]:
    """The rung of this name."""
    return next(rung for rung in content["rungs"] if rung["step"] == step)


if __name__ == "__main__":
    try:
        main()
    except OneXNError as error:
        sys.exit(f"benchmarks.repair: {error}")
