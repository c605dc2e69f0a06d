"""python -m benchmarks.rearrangement.bound: more than what no arrangement in blocks of two can keep, beside swap.

For any thresholds λ the blocks that pruning keeps hold at most K λ + Σ max(score − λ, 0), where K of them are kept.
In blocks of two the sum has one term for every pair of channels, and the best way to pair channels up is worth at most
half the best assignment of every channel to another one, which is found exactly: the bound is proved, not searched.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.common.record import command_line, record
from benchmarks.rearrangement.kept_l1 import PACKAGES, Row
from benchmarks.rearrangement.trained import TRAINED, Trained
from onexn_plugins import rearrange
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import PrunableLayer, prunable_layers, weighted_layers
from onexn_plugins.rearrangement import Space, find_spaces
from onexn_plugins.rearrangement.assignment import best_assignment
from onexn_plugins.rearrangement.norms import KernelNorms
from onexn_plugins.rearrangement.swap import positive_sums
from onexn_plugins.report import Column, Page, Section, Table, save, to_text, write_html
from onexn_plugins.selection import num_pruned

COLUMNS = (
    Column("name", "Network"), Column("none", "As trained", "percent"), Column("swap", "Swap (ours)", "percent"),
    Column("most", "No arrangement above", "percent"), Column("single", "Single kernels", "percent"),
    Column("closed", "Distance closed", "percent"), Column("closable", "Closed at most", "percent"))
SUMMARY = ("Share of the L1 norm of all prunable layers that 1×2 pruning keeps, and a proved bound of it over all "
           "arrangements of the channels that leave the network's function as it is. Trained weights.")


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    torch.set_num_threads(1)
    facts, rows = record(command_line("benchmarks.rearrangement.bound"), (*PACKAGES, "scipy")), []
    for name in options.networks:
        try:
            rows.append(measured(TRAINED[name], TRAINED[name].make(), options.ratio))
        except OneXNError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        print(to_text(Table(COLUMNS, (rows[-1],))).splitlines()[-1], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    section = Section(f"1×2, {options.ratio:.0%} pruned", table=Table(COLUMNS, tuple(rows)))
    page, report = Page("What no arrangement can exceed", SUMMARY, (section,), record=facts), options.out / "bound.json"
    save(page, report)
    print(report, write_html(page, options.out / "bound.html"))
    return 0


def measured(network: Trained, model: nn.Module, ratio: float) -> Row:
    """What is kept in the trained order, by swap, by no arrangement and by single kernels."""
    narrow = [name for name, layer in weighted_layers(model).items() if layer.weight.shape[0] < 2]
    layers, spaces = prunable_layers(model, narrow), find_spaces(model, network.example()).spaces
    found = rearrange(model, network.example(), block_size=2, pruning_ratio=ratio, ignored_layers=narrow, spaces=spaces)
    none, single = found.retained_before, KernelNorms(layers, 1, ratio).retained()[1]
    most = most_kept(layers, spaces, ratio)
    return {"name": network.title, "none": none, "swap": found.retained_after, "most": most, "single": single,
            "closed": (found.retained_after - none) / (single - none), "closable": (most - none) / (single - none)}


def most_kept(layers: Mapping[str, PrunableLayer], spaces: Sequence[Space], ratio: float) -> float:
    """A share of L1 that no arrangement exceeds; tightest where the layers are arranged well already.

    Layers whose rows do not pair up within one space each are bounded by single kernels.
    """
    norms, single = KernelNorms(layers, 2, ratio), KernelNorms(layers, 1, ratio)
    paired = _paired(norms, layers, spaces)
    most = sum(single.kept(name) for name in layers if name not in paired)
    for name in paired:
        kept_blocks = norms.patterns[name].block_rows * norms.kernels[name].shape[1]
        most += norms.cut(name)[0] * (kept_blocks - num_pruned(kept_blocks, ratio))
    for space in spaces:
        parts = [(norms.kernels[name][rows[:, 0]], norms.cut(name)[0])
                 for name, rows in space.producers(layers).items() if name in paired]
        if parts:
            most += _best_pairs(torch.cat([part for part, _ in parts], 1),
                                torch.cat([torch.full(part.shape[1:], cut) for part, cut in parts]))
    return most / sum(norms.total(name) for name in layers)


def _best_pairs(rows: Tensor, thresholds: Tensor) -> float:
    """At least the largest Σ max(row + other − threshold, 0) over all ways to pair rows up."""
    value = positive_sums(rows.float(), (rows - thresholds).float())
    other = best_assignment(value, ~torch.eye(len(rows), dtype=torch.bool))
    return float(value[other, torch.arange(len(rows))].double().sum()) / 2


def _paired(norms: KernelNorms, layers: Mapping[str, PrunableLayer], spaces: Sequence[Space]) -> set[str]:
    """Layers that are cut into pairs of rows of one space, all layers of a space alike."""
    owner = {name: torch.full((len(kernels),), -1) for name, kernels in norms.kernels.items()}
    excluded: set[str] = set()
    for number, space in enumerate(spaces):
        cuts = {}
        for name, rows in space.producers(layers).items():
            owner[name][rows.flatten()] = number
            cuts[name] = norms.block_of_row(name)[rows[:, 0]].unique(return_inverse=True)[1].tolist()
            if rows.shape[1] > 1 or cuts[name] != next(iter(cuts.values())):
                excluded.add(name)
    no_tails = {name for name in owner if bool((norms.patterns[name].row_heights() == 2).all())}
    return {name for name in no_tails - excluded
            if bool((owner[name][0::2] == owner[name][1::2]).all()) and bool((owner[name] >= 0).all())}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rearrangement.bound", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(TRAINED), default=list(TRAINED))
    parser.add_argument("--ratio", type=float, default=0.5, help="pruned (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/rearrangement"), help="folder (default: %(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
