"""`onexn rearrange`: move channels so that blocks gather weight, before any pruning."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from onexn_plugins.cli.common import (
    Result,
    add_block_size,
    add_model,
    example_input,
    read_model,
    save_weights,
    stage,
)
from onexn_plugins.files import check_writable
from onexn_plugins.rearrangement import Rearrangement, rearrange
from onexn_plugins.report import Column, Table, to_text
from onexn_plugins.report.cells import Cell

HELP = "Move a model's channels so that 1×N pruning keeps more; the function is proved unchanged."
EXAMPLE = "onexn rearrange mobilenet_v2 --pruning-ratio 0.75 --output rearranged.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_block_size(parser)
    parser.add_argument("--pruning-ratio", type=float, default=0.5, metavar="P",
                        help="fraction of blocks that pruning will remove (default 0.5)")
    parser.add_argument("--method", choices=("swap", "sort"), default="swap",
                        help="a search, or the paper's sort by L1 norm")
    parser.add_argument("--seed", type=int, default=0, help="seed of the search")
    parser.add_argument("--ignore", action="append", default=[], metavar="LAYER", help="this layer stays dense")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE",
                        help="where to save the weights (.safetensors, or .pt as torch.save writes it)")


def run(arguments: argparse.Namespace) -> Result:
    if arguments.output is not None:
        check_writable(arguments.output)
    model = read_model(arguments)
    with stage(arguments, f"rearranging {arguments.model}"):
        moved = rearrange(model, example_input(model, arguments), block_size=arguments.block_size,
                          pruning_ratio=arguments.pruning_ratio, method=arguments.method, seed=arguments.seed,
                          ignored_layers=arguments.ignore)
    values = {"model": arguments.model, "method": arguments.method, **summary(moved), "layers": [
        {"name": layer.name, "shape": list(layer.shape), "retained_before": layer.retained_before,
         "retained_after": layer.retained_after, "moved": layer.moved, "refused": layer.refused}
        for layer in moved.layers]}
    columns = (Column("name", "layer"), Column("before", "L1 kept", "percent"), Column("after", "then", "percent"),
               Column("moved", "moved"))
    rows: tuple[dict[str, Cell], ...] = tuple(
        {"name": layer.name, "before": layer.retained_before, "after": layer.retained_after,
         "moved": "yes" if layer.moved else layer.refused or "no"} for layer in moved.layers)
    lines = [to_text(Table(columns, rows)), sentence(moved)]
    if arguments.output is not None:
        save_weights(model, arguments.output)
        values["output"] = str(arguments.output)
        lines.append(f"weights: {arguments.output}")
    return Result(values, "\n".join(lines))


def summary(moved: Rearrangement) -> dict[str, Any]:
    """The outcome as plain values."""
    return {"retained_before": moved.retained_before, "retained_after": moved.retained_after,
            "max_error": moved.max_error, "refused": [list(item) for item in moved.refused]}


def sentence(moved: Rearrangement) -> str:
    """The outcome in one line."""
    return (f"rearranged: L1 kept {moved.retained_before:.4f} -> {moved.retained_after:.4f}, "
            f"proved equal to {moved.max_error:.0e}, {len(moved.refused)} layers refused")
