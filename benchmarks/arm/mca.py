"""python -m benchmarks.arm.mca: multiply-adds per cycle of the kernels' inner loops, by LLVM's machine code analyser.

Needs llvm-mca (Debian: package llvm-19, or llvm; --mca names the command). It knows how many instructions of which kind
a core starts per cycle and how long each takes, and nothing of caches: everything is in the first one.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.arm import page
from benchmarks.common.families import FAMILIES, KEPT, POINTWISE, RELU, bias
from benchmarks.common.loops import Loop, heart, multiply_adds
from benchmarks.common.record import command_line, record
from benchmarks.common.requests import single
from benchmarks.common.weights import pruned
from onexn_plugins.files import written_aside
from onexn_plugins.report import Column, Table, to_markdown, to_text
from onexn_plugins.tvm_backend.kernels.conv.pointwise import pointwise
from onexn_plugins.tvm_backend.kernels.problem import Tile
from onexn_plugins.tvm_backend.processors import find_target, vector_unit

RESULTS = Path(__file__).with_name("results") / "mca.json"
TURNS = 200  # of a loop, so that its beginning and end do not count
A53_TILES = ((4, 3), (4, 4), (4, 5), (4, 6), (8, 2), (8, 3))


# LLVM describes a Cortex-A76 as if it were a Cortex-A57, but knows its twin for servers. Of a Cortex-A7 it has nothing
# that llvm-mca could use.
MODELS = {"cortex-a53": "cortex-a53", "cortex-a72": "cortex-a72", "cortex-a76": "neoverse-n1", "cortex-a7": None}
# A Cortex-A7 is taken to start one instruction after the other, and a multiply-add of four lanes to take four cycles.
A7_MULTIPLY_ADD = 4


@dataclass(frozen=True)
class Analyser:
    """llvm-mca by its command's name."""

    command: str

    @property
    def version(self) -> str:
        """As it calls itself."""
        said = subprocess.run([self.command, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"LLVM version \S+", said)
        return found[0] if found else said.strip()

    def cycles(self, loop: Loop, model: str | None) -> float:
        """Of one turn, when the loop runs for long; without a model as a Cortex-A7 is taken to run it."""
        if model is None:
            return len(loop) + (A7_MULTIPLY_ADD - 1) * multiply_adds(loop)
        options = ["-mtriple=aarch64-linux-gnu", f"-mcpu={model}", f"-iterations={TURNS}"]
        done = subprocess.run([self.command, *options], input="\n".join(loop), capture_output=True, text=True,
                              check=False)
        if done.returncode:
            raise RuntimeError(f"{self.command} ended with {done.returncode}: {done.stderr[:500]}")
        return int(re.findall(r"Total Cycles:\s+(\d+)", done.stdout)[0]) / TURNS

    def rate(self, loop: Loop, model: str | None) -> float:
        """Vector multiply-adds per cycle."""
        return multiply_adds(loop) / self.cycles(loop, model)

    def peak(self, model: str | None) -> float:
        """Of multiply-adds that wait for nothing."""
        if model is None:
            return 1 / A7_MULTIPLY_ADD
        return self.rate([f"fmla v{number}.4s, v30.4s, v31.s[0]" for number in range(24)], model)


def main() -> None:
    arguments = _parse()
    analyser = Analyser(arguments.mca)
    families = [row for core in MODELS for row in _families(core, analyser)]
    tiles = [_a53_tile(Tile(*tile), analyser) for tile in A53_TILES]
    print(to_text(family_table(families)), to_text(tile_table(tiles)), sep="\n\n")
    result = {**record(command_line("benchmarks.arm.mca")), "mca": analyser.version, "kept": KEPT,
              "models": MODELS, "families": families, "a53_tiles": tiles}
    with written_aside(RESULTS) as unfinished:
        unfinished.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    page.publish({"mca families": to_markdown(family_table(families)), "mca tiles": to_markdown(tile_table(tiles))})


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arm.mca", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mca", default="llvm-mca", help="the analyser's command (default %(default)s)")
    return parser.parse_args()


def _families(core: str, analyser: Analyser) -> list[dict[str, Any]]:
    target, model = find_target(core), MODELS[core]
    unit, peak, rows = vector_unit(target), analyser.peak(model), []
    for name, make in FAMILIES.items():
        kernel, tile = make(unit)
        loop = heart(kernel, target)
        rate = analyser.rate(loop, model)
        rows.append({"core": core, "family": name, "tile": f"{tile.block_size}×{tile.vectors}" if tile else "–",
                     "instructions": len(loop), "multiply_adds": multiply_adds(loop), "per_cycle": round(rate, 2),
                     "share": round(rate / peak, 3)})
    return rows


def _a53_tile(tile: Tile, analyser: Analyser) -> dict[str, Any]:
    """With two blocks a turn, as for other cores, and with one."""
    target = find_target("cortex-a53")
    weight, rates = pruned(POINTWISE, KEPT, tile.block_size), {}
    for ways, unrolled in (("two", False), ("one", True)):
        unit = replace(vector_unit(target), unrolls=unrolled)
        loop = heart(pointwise(single(POINTWISE, weight, bias(POINTWISE), RELU, unit, tile)), target)
        rates[ways] = round(analyser.rate(loop, MODELS["cortex-a53"]), 2)
    return {"tile": f"{tile.block_size}×{tile.vectors}", **rates}


def family_table(rows: list[dict[str, Any]]) -> Table:
    """A kernel family on a core per row."""
    return Table((Column("core", "Core"), Column("family", "Kernel"), Column("tile", "Channels × vectors"),
                  Column("instructions", "Instructions a turn"), Column("multiply_adds", "Multiply-adds among them"),
                  Column("per_cycle", "Multiply-adds a cycle"), Column("share", "Of the peak", "percent")), tuple(rows))


def tile_table(rows: list[dict[str, Any]]) -> Table:
    """A tile per row."""
    return Table((Column("tile", "Channels × vectors (1×1, 25 % kept)"), Column("two", "two blocks a turn"),
                  Column("one", "one block a turn")), tuple(rows))


if __name__ == "__main__":
    main()
