"""Times decoders of transposed convolutions, dense and 1×4-pruned, in turn with ONNX Runtime's dense ones.

Random weights, float32, one thread; the file is written after every network. What counts is the processor time of the
thread, so that other programs that run meanwhile count as little as can be; the ratio is that of the medians of a turn,
over all turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.common.record import command_line, record
from onexn_plugins import export_onnx
from onexn_plugins.cli.run import onnxruntime_session
from onexn_plugins.progress import Progress
from onexn_plugins.timing import CALLS_PER_TURN, interleave_turns
from onexn_plugins.tvm_backend import compile_model

RESULTS = Path(__file__).with_name("results") / "transposed.json"
BLOCK_SIZE, RATIOS = 4, (0.0, 0.75)


def keypoint_head() -> nn.Module:
    """Of Simple Baselines for Human Pose Estimation (Xiao, Wu, Wei, ECCV 2018)."""
    steps: list[nn.Module] = []
    for _ in range(3):
        steps += [nn.ConvTranspose2d(256, 256, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(256), nn.ReLU()]
    return nn.Sequential(*steps)


def unet_decoder() -> nn.Module:
    """The way up of U-Net (Ronneberger, Fischer, Brox, MICCAI 2015), without what comes from the way down."""
    steps: list[nn.Module] = []
    for wide, narrow in ((256, 128), (128, 64), (64, 32)):
        steps += [nn.ConvTranspose2d(wide, narrow, 2, stride=2),
                  nn.Conv2d(narrow, narrow, 3, padding=1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU()]
    return nn.Sequential(*steps)


def image_generator() -> nn.Module:
    """Of DCGAN (Radford, Metz, Chintala, ICLR 2016), from 4×4 pixels on."""
    steps: list[nn.Module] = []
    for wide, narrow in ((512, 256), (256, 128), (128, 64)):
        steps += [nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(narrow),
                  nn.ReLU()]
    return nn.Sequential(*steps, nn.ConvTranspose2d(64, 3, 4, stride=2, padding=1))


def vocoder() -> nn.Module:
    """The upsampling of HiFi-GAN V2 (Kong, Kim, Bae, NeurIPS 2020)."""
    shapes = ((128, 64, 16, 8), (64, 32, 16, 8), (32, 16, 4, 2), (16, 8, 4, 2))
    return nn.Sequential(*(nn.Sequential(nn.LeakyReLU(0.1), nn.ConvTranspose1d(
        wide, narrow, kernel, stride, (kernel - stride) // 2)) for wide, narrow, kernel, stride in shapes))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "keypoint head, 4×4 stride 2": (keypoint_head, (1, 256, 8, 6)),
    "UNet decoder, 2×2 stride 2": (unet_decoder, (1, 256, 16, 16)),
    "image generator, 4×4 stride 2": (image_generator, (1, 512, 4, 4)),
    "vocoder, 1-d, strides 8 and 2": (vocoder, (1, 128, 32)),
}


def prune(model: nn.Module, ratio: float) -> nn.Module:
    """Random blocks of every convolution away."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)):
                out = 0 if isinstance(layer, nn.Conv2d) else 1
                weight = layer.weight.transpose(0, out)  # [out, in, *kernel]
                keep = torch.rand(-(-weight.shape[0] // BLOCK_SIZE), weight.shape[1], generator=generator) >= ratio
                weight *= keep.repeat_interleave(BLOCK_SIZE, 0)[:weight.shape[0]].reshape(
                    *weight.shape[:2], *(1 for _ in weight.shape[2:]))
    return model.eval()


def measure(make: Callable[[], nn.Module], shape: tuple[int, ...], rounds: int,
            progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Milliseconds of each contender, and how many times faster ours are than ONNX Runtime's dense network."""
    torch.manual_seed(0)
    x, contenders, layers, seconds = torch.randn(shape), dict[str, Callable[[], object]](), {}, {}
    for ratio in RATIOS:
        torch.manual_seed(1)
        with tempfile.TemporaryDirectory() as folder:
            path = str(export_onnx(prune(make(), ratio), x, Path(folder) / "network.onnx", block_size=BLOCK_SIZE))
            if not ratio:
                session = onnxruntime_session(path)
                contenders["onnxruntime"] = partial(session.run, None, {session.get_inputs()[0].name: x.numpy()})
            start = time.process_time()
            compiled = compile_model(path, verify=True)
            seconds[_name(ratio)] = round(time.process_time() - start, 1)
        contenders[_name(ratio)] = partial(compiled.run, x.numpy())
        layers[_name(ratio)] = [f"{layer.name}: {layer.family}, {layer.reason}" for layer in compiled.layers]
    timings = interleave_turns({name: partial(_turn, run) for name, run in contenders.items()}, rounds=rounds,
                               progress=progress)
    return {"milliseconds": {name: vars(timings.milliseconds(name)) for name in contenders},
            "times_faster": {_name(ratio): vars(timings.speedup(_name(ratio), "onnxruntime")) for ratio in RATIOS},
            "compile_seconds": seconds, "layers": layers}


def _turn(run: Callable[[], object]) -> np.ndarray:
    marks = [time.thread_time_ns()]
    for _ in range(CALLS_PER_TURN):
        run()
        marks.append(time.thread_time_ns())
    return np.diff(marks) / 1e6


def _name(ratio: float) -> str:
    return f"1×{BLOCK_SIZE}, {ratio:.0%}" if ratio else "dense"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transposed", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    facts, progress, rows = record(command_line("benchmarks.transposed")), Progress(), []
    for name in options.networks:
        make, shape = NETWORKS[name]
        with progress.stage(name):
            rows.append({"network": name, "input": list(shape),
                         **measure(make, shape, options.rounds, progress.rounds)})
        ratios = ", ".join(f"{contender} {found['value']:.2f}" for contender, found in rows[-1]["times_faster"].items())
        print(f"{name}: times faster than onnxruntime dense: {ratios}", flush=True)
        result = {**facts, "block_size": BLOCK_SIZE, "threads": 1, "rounds": options.rounds,
                  "clock": "processor time of the thread", "networks": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
