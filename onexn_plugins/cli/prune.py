"""`onexn prune`: 1×N masks through the torch-pruning adapter, folded into the weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from onexn_plugins.cli.common import Result, add_block_size, add_model, example_input, read_model, save_weights, stage
from onexn_plugins.cli.inspect import layer_table
from onexn_plugins.cli.rearrange import sentence, summary
from onexn_plugins.files import check_writable
from onexn_plugins.masking import fold
from onexn_plugins.measurement import measure
from onexn_plugins.scores import SCORES

HELP = "Prune a model's convolutions in 1×N blocks and save its weights."
EXAMPLE = "onexn prune mobilenet_v2 --pruning-ratio 0.75 --rearrange --output pruned.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_block_size(parser)
    parser.add_argument("--pruning-ratio", type=float, default=0.5, metavar="P",
                        help="fraction of blocks to remove (default 0.5)")
    parser.add_argument("--scope", choices=("layer", "row", "global"), default="layer",
                        help="where blocks compete: in their layer, their block row, or the whole model")
    parser.add_argument("--importance", choices=tuple(SCORES), default="l1",
                        help="; ".join(f"{name}: {entry.summary}" for name, entry in SCORES.items()))
    parser.add_argument("--seed", type=int, default=0, help="seed of --importance random")
    parser.add_argument("--rearrange", action="store_true", help="move channels first, so that blocks gather weight")
    parser.add_argument("--ignore", action="append", default=[], metavar="LAYER", help="leave this layer dense")
    parser.add_argument("--full", action="store_true", help="prune Linear layers too")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE", help="where to save the weights (.safetensors)")


def run(arguments: argparse.Namespace) -> Result:
    from onexn_plugins.torch_pruning import BlockScoreImportance, OneXNPruner

    if arguments.output is not None:
        check_writable(arguments.output)
    model = read_model(arguments)
    importance = BlockScoreImportance(arguments.importance, seed=arguments.seed)
    with stage(arguments, f"pruning {arguments.model}"):
        pruner = OneXNPruner(
            model, example_input(arguments), importance, block_size=arguments.block_size,
            pruning_ratio=arguments.pruning_ratio, rearrange=arguments.rearrange, scope=arguments.scope,
            ignored_layers=arguments.ignore, full=arguments.full)
        pruner.step()
        fold(model)
    report = measure(model, arguments.block_size)
    values = {"model": arguments.model, "pruning_ratio": arguments.pruning_ratio, **report.to_dict()}
    lines = [layer_table(report), f"pruned: {report.sparsity.blocks:.1%} of the blocks, "
                                  f"{report.sparsity.weights:.1%} of the weights of prunable layers"]
    if pruner.rearrangement is not None:
        values["rearrangement"] = summary(pruner.rearrangement)
        lines.append(sentence(pruner.rearrangement))
    if arguments.output is not None:
        save_weights(model, arguments.output)
        values["output"] = str(arguments.output)
        lines.append(f"weights: {arguments.output}")
    return Result(values, "\n".join(lines))
