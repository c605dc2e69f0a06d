"""Instructions of 3×3 layers computed directly and by Winograd's way, beside what the kernels' rule chooses.

    python -m benchmarks.arm.winograd
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from benchmarks.arm.counting import CPU, Counter, counter
from benchmarks.arm.ours import RUN
from benchmarks.common.emulation.arm64_root import Arm64, arm64_machine
from benchmarks.common.record import command_line, record
from benchmarks.common.requests import single
from benchmarks.common.weights import pruned
from onexn_plugins.files import written_aside
from onexn_plugins.report import Column, Table, to_text
from onexn_plugins.tvm_backend.kernels.choose import FAMILIES, choose, dense_block
from onexn_plugins.tvm_backend.kernels.code.pipeline import compile_kernels
from onexn_plugins.tvm_backend.kernels.parts.tiling import default_tile
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel
from onexn_plugins.tvm_backend.kernels.winograd.choice import best_outputs
from onexn_plugins.tvm_backend.kernels.winograd.kernel import winograd
from onexn_plugins.tvm_backend.output.linker import shared_library_linker
from onexn_plugins.tvm_backend.processors import Target, find_target, vector_unit

RESULTS = Path(__file__).with_name("results") / "winograd.json"
# (channels, pixels per side): ResNet-18's.
LAYERS = ((64, 56), (128, 28), (256, 14), (512, 7))
KEPT = (1.0, 0.25, 0.1, 0.03)
BLOCK_SIZE = 4
COLUMNS = (Column("layer", "Layer"), Column("kept", "Blocks kept", "ratio"), Column("direct", "Direct (millions)"),
           Column("winograd", "Winograd (millions)"), Column("ratio", "Winograd over direct"),
           Column("chosen", "Winograd is chosen", "yes_no"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arm.winograd", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="a JSON file; default: the published one")
    out = parser.parse_args().out
    target, machine, counting = find_target(CPU), arm64_machine(), counter()
    rows = []
    for channels, side in LAYERS:
        for kept in KEPT:
            with tempfile.TemporaryDirectory(prefix="onexn-winograd-") as folder:
                rows.append(_row(channels, side, kept, target, machine, counting, Path(folder)))
    print(to_text(Table(COLUMNS, tuple(rows))))
    result = {**record(command_line("benchmarks.arm.winograd")), "cpu": CPU, "block_size": BLOCK_SIZE, "layers": rows}
    with written_aside(out) as unfinished:
        unfinished.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _row(channels: int, side: int, kept: float, target: Target, machine: Arm64, counting: Counter,
         folder: Path) -> dict[str, Any]:
    problem, unit = Conv(1, channels, side, side, channels, (3, 3), padding=(1, 1, 1, 1)), vector_unit(target)
    block_size = dense_block(problem, unit) if kept == 1 else BLOCK_SIZE
    weight, bias, epilogue = pruned(problem, kept, block_size), np.zeros(channels, np.float32), Epilogue(False, "relu")
    request = single(problem, weight, bias, epilogue, unit, default_tile(problem, block_size, unit))
    direct = choose(request, [family for family in FAMILIES if family.name != "winograd"]).family
    kernels = {"direct": direct.build(request),
               "winograd": winograd(request)}
    millions = {name: _millions(kernel, problem, target, machine, counting, folder / name)
                for name, kernel in kernels.items()}
    print(f"{channels} channels, {side}×{side}, {kept:.0%} kept: {millions}", flush=True)
    return {"layer": f"{channels} → {channels}, {side}×{side}", "kept": kept, **millions,
            "ratio": round(millions["winograd"] / millions["direct"], 2),
            "chosen": best_outputs(problem, request.first.blocks.density, unit) is not None}


def _millions(kernel: Kernel, problem: Conv, target: Target, machine: Arm64, counting: Counter, folder: Path) -> float:
    folder.mkdir()
    module = compile_kernels({"kernel": kernel.func.with_attr("global_symbol", "kernel")},
                             tvm.target.Target(target.tvm))
    link = shared_library_linker(target)
    module.export_library(str(folder / "kernel.so"), fcompile=link)
    np.savez(folder / "arguments.npz", *kernel.constants, np.empty(problem.output_shape, np.float32))
    shape = ",".join(str(size) for size in problem.input_shape)
    counts = counting.count(lambda runs: [machine.python, str(RUN), "kernel", str(folder), shape, str(runs)],
                            machine.environment)
    return round(counts.all / 1e6, 2)


if __name__ == "__main__":
    main()
