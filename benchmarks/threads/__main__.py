"""Times networks on one and on two threads, ours and ONNX Runtime's, in turn; and each of our kernels alone.

    python -m benchmarks.threads prepare     # compile only, so that the measuring run is short
    python -m benchmarks.threads

1×4 blocks, batch 1, float32, 224×224, random weights. Writes one JSON per network. Run it on an idle machine with at
least as many processors as threads: a third busy program halves what two threads can gain.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.record import command_line, commit, record
from benchmarks.latency.networks import export
from benchmarks.latency.parts import BLOCK_SIZE, PIXELS, Variant
from onexn_plugins.progress import Progress
from onexn_plugins.timing import Timings, interleave
from onexn_plugins.tvm_backend import compile_model, load
from onexn_plugins.tvm_backend.running.compiled import Compiled

RESULTS = Path(__file__).with_name("results")
NETWORKS, RATIOS = ("mobilenet_v2", "resnet50"), (0.0, 0.5, 0.75, 0.9)


def main() -> int:
    options = _options()
    torch.set_num_threads(1)
    facts, progress = record(command_line("benchmarks.threads")), Progress()
    options.folder.mkdir(parents=True, exist_ok=True)
    for network in options.networks:
        with progress.stage(network):
            compiled = {ratio: _compiled(network, ratio, options) for ratio in options.ratios}
            if options.action == "prepare":
                continue
            result = facts | {"network": network, "block_size": BLOCK_SIZE, "pixels": PIXELS,
                              "threads": options.threads, "rounds": options.rounds,
                              **_measured(network, compiled, options, progress)}
        options.output.mkdir(parents=True, exist_ok=True)
        path = options.output / f"{network}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        _print(result)
    return 0


def _compiled(network: str, ratio: float, options: argparse.Namespace) -> dict[int, Compiled]:
    """By number of threads; what an earlier run of this commit has left in the folder is taken from there."""
    found: dict[int, Compiled] = {}
    for threads in (1, options.threads):
        saved = options.folder / f"{network}_{ratio:g}_{threads}_{commit()}"
        if not saved.exists():
            onnx = _onnx(network, ratio, options.folder)
            compile_model(onnx, threads=threads).save(saved)
        found[threads] = load(saved)
    return found


def _onnx(network: str, ratio: float, folder: Path) -> Path:
    variant = folder / f"{network}_{ratio:g}"
    if not variant.exists():
        variant.mkdir()
        export(Variant(network, ratio), variant)
    return variant / "network.onnx"


def _measured(network: str, compiled: dict[float, dict[int, Compiled]], options: argparse.Namespace,
              progress: Progress) -> dict[str, Any]:
    """Interleaved runs, ONNX Runtime's before ours: our waiting threads stay awake for a while after a run."""
    image = np.random.default_rng(0).standard_normal((1, 3, PIXELS, PIXELS)).astype(np.float32)
    counts = (1, options.threads)
    peer = {f"onnxruntime, dense, {threads}": _onnxruntime(_onnx(network, 0.0, options.folder), image, threads)
            for threads in counts}
    timings = interleave(peer, rounds=options.rounds, progress=progress.rounds)
    rows = [_row("onnxruntime, dense", timings, options.threads)]
    del peer
    ours = {f"{_name(ratio)}, {threads}": (lambda module=module: module.run(image))
            for ratio, found in compiled.items() for threads, module in found.items()}
    timings = interleave(ours, rounds=options.rounds, progress=progress.rounds)
    rows += [_row(_name(ratio), timings, options.threads) for ratio in compiled]
    return {"latency": rows, "kernels": {_name(ratio): _kernels(found, image, options)
                                         for ratio, found in compiled.items()}}


def _row(name: str, timings: Timings, threads: int) -> dict[str, Any]:
    alone, together = (timings.milliseconds(f"{name}, {count}") for count in (1, threads))
    speedup = timings.speedup(f"{name}, {threads}", f"{name}, 1")
    return {"name": name, "one_thread_ms": vars(alone), "threads_ms": vars(together), "speedup": vars(speedup),
            # The lowest percentile suffers least from whatever else the machine does.
            "speedup_of_p10": alone.low / together.low}


def _kernels(networks: dict[int, Compiled], image: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    """Each kernel's time on one and on all threads, and how much more than its fair share it took."""
    alone, together = (networks[threads].profile(options.rounds, [image]).kernels
                       for threads in (1, options.threads))
    rows = [{"name": one.name, "kernel": one.kernel, "one_thread_us": 1e3 * one.milliseconds,
             "threads_us": 1e3 * many.milliseconds,
             "lost_us": 1e3 * (many.milliseconds - one.milliseconds / options.threads)}
            for one, many in zip(alone, together, strict=True)]
    total = sum(row["threads_us"] for row in rows)
    return {"not_scaling": sum(max(0.0, row["lost_us"]) for row in rows) / total, "rows": rows}


def _onnxruntime(path: Path, image: np.ndarray, threads: int) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image}
    return lambda: session.run(None, feed)


def _name(ratio: float) -> str:
    return f"1×{BLOCK_SIZE}, {ratio:.0%}" if ratio else "dense"


def _print(result: dict[str, Any]) -> None:
    for row in result["latency"]:
        times = "{:7.2f} ms {:7.2f} ms".format(row["one_thread_ms"]["value"], row["threads_ms"]["value"])
        print(f"{result['network']:14}{row['name']:22}{times}  {row['speedup']['value']:.2f}x "
              f"({row['speedup_of_p10']:.2f}x at the 10th percentile)")
    for name, kernels in result["kernels"].items():
        print(f"{result['network']:14}{name:22}{kernels['not_scaling']:.0%} of the kernels' time does not scale")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", choices=("prepare", "measure"), default="measure")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--ratios", nargs="+", type=float, default=RATIOS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, default=Path("out/threads"), help="networks (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
