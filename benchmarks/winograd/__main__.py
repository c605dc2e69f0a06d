"""python -m benchmarks.winograd: 3×3 layers computed directly and by Winograd's algorithm, and what the rule chooses.

Directly, with tiles of 2×2 and with tiles of 4×4 outputs take turns on one core; targets are levels of x86-64 that this
machine can run. `benchmarks.arm.winograd` counts instructions for ARM.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from benchmarks.common.record import command_line, record
from benchmarks.common.requests import single
from benchmarks.common.weights import pruned
from onexn_plugins.report import Column, Table, to_text
from onexn_plugins.timing import interleave
from onexn_plugins.tvm_backend.kernels.choose import FAMILIES, choose, dense_block
from onexn_plugins.tvm_backend.kernels.code.pipeline import compile_kernels
from onexn_plugins.tvm_backend.kernels.parts.tiling import default_tile
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel
from onexn_plugins.tvm_backend.kernels.winograd.choice import best_outputs
from onexn_plugins.tvm_backend.kernels.winograd.kernel import winograd
from onexn_plugins.tvm_backend.processors import Target, find_target, vector_unit

RESULTS = Path(__file__).with_name("results") / "winograd.json"
# (channels, pixels per side): ResNet-18's.
LAYERS = ((64, 56), (128, 28), (256, 14), (512, 7))
KEPT = (1.0, 0.5, 0.25, 0.1)
BLOCK_SIZE = 4
WAYS = {"direct": None, "2×2": 2, "4×4": 4}
COLUMNS = (Column("target", "Target"), Column("layer", "Layer"), Column("kept", "Blocks kept", "percent"),
           *(Column(way, way, "microseconds") for way in WAYS), Column("chosen", "Chosen"),
           Column("over_best", "Chosen over the fastest", "times"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.winograd", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=["host", "x86-64-v3", "x86-64-v2"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    facts, rows = record(command_line("benchmarks.winograd")), []
    for name in options.targets:
        for channels, side in LAYERS:
            for kept in KEPT:
                rows.append(_row(find_target(name), channels, side, kept, options.rounds))
                print(rows[-1], file=sys.stderr, flush=True)
    print(to_text(Table(COLUMNS, tuple(rows))))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**facts, "block_size": BLOCK_SIZE, "rows": rows}, indent=1,
                                      ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def _row(target: Target, channels: int, side: int, kept: float, rounds: int) -> dict[str, Any]:
    problem, unit = Conv(1, channels, side, side, channels, (3, 3), padding=(1, 1, 1, 1)), vector_unit(target)
    block_size = dense_block(problem, unit) if kept == 1 else BLOCK_SIZE
    weight, bias, epilogue = pruned(problem, kept, block_size), np.zeros(channels, np.float32), Epilogue(False, "relu")
    request = single(problem, weight, bias, epilogue, unit, default_tile(problem, block_size, unit))
    direct = choose(request, [family for family in FAMILIES if family.name != "winograd"]).family
    kernels = {way: direct.build(request) if outputs is None else
               winograd(request, outputs) for way, outputs in WAYS.items()}
    timings = interleave(_runnable(kernels, problem, target), rounds=rounds)
    times = {way: round(1e3 * timings.milliseconds(way).value, 1) for way in WAYS}
    outputs = best_outputs(problem, request.first.blocks.density, unit)
    chosen = next(way for way, size in WAYS.items() if size == outputs)
    return {"target": target.name, "layer": f"{channels}→{channels}, {side}×{side}", "kept": kept, **times,
            "chosen": chosen, "over_best": round(times[chosen] / min(times.values()), 3)}


def _runnable(kernels: dict[str, Kernel], problem: Conv, target: Target) -> dict[str, Callable[[], object]]:
    names = {way: f"kernel_{number}" for number, way in enumerate(kernels)}
    functions = {names[way]: kernel.func.with_attr("global_symbol", names[way]) for way, kernel in kernels.items()}
    module = compile_kernels(functions, tvm.target.Target(target.tvm))
    x, y = (np.zeros(shape, np.float32) for shape in (problem.input_shape, problem.output_shape))
    x += np.random.default_rng(0).standard_normal(x.shape, np.float32)
    return {way: partial(module[names[way]], *map(tvm.runtime.tensor, (x, *kernel.constants, y)))
            for way, kernel in kernels.items()}


if __name__ == "__main__":
    sys.exit(main())
