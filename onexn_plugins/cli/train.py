"""`onexn train`: train or fine-tune a network on a folder or zip of images, with 1×N masks that stay."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from onexn_plugins.cli.common import Result, add_block_size, save_weights
from onexn_plugins.errors import OneXNError
from onexn_plugins.report import Column, Table, to_text
from onexn_plugins.scores import SCORES
from onexn_plugins.selection import SCOPES

if TYPE_CHECKING:
    from onexn_plugins.training import Method, Trained
    from onexn_plugins.training.data import Images

HELP = "Train a network on images, dense or pruned in 1×N blocks; the same command goes on where it was stopped."
EXAMPLE = """onexn train mobilenet_v2 --data imagenet --weights dense.pt --pruning-ratio 0.75 --rearrange -o runs/v2

on several devices or machines, `onexn` is started by torchrun:
  torchrun --nproc-per-node 8 -m onexn_plugins.cli train mobilenet_v2 --data imagenet -o runs/v2"""
COLUMNS = (Column("epoch", "epoch"), Column("loss", "loss", "decimal"), Column("top1", "top-1", "percent"),
           Column("top5", "top-5", "percent"), Column("lr", "learning rate", "decimal"),
           Column("seconds", "took", "seconds"))
WEIGHTS = "model.safetensors"
# What each is if not given.
_OF_PRUNING = {"importance": "l1", "scope": "layer", "rearrange": "none", "full": False, "gradual": None,
               "straight_through": False, "decay": 0.0, "alternate": None, "dense_phases": None, "repair": None,
               "channels": None}
_NEEDS = {"straight_through": "gradual", "decay": "straight_through", "dense_phases": "alternate", "channels": "repair"}
_WAYS = ("gradual", "alternate", "repair")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="torchvision or timm model name, or module:callable")
    parser.add_argument("--data", type=Path, required=True, metavar="PATH",
                        help="folder or zip with train/CLASS/IMAGE and val/CLASS/IMAGE (or test/)")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FOLDER",
                        help="of this run alone: log.jsonl, last.ckpt, and in the end model.safetensors")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="state dict to start from (default: random)")
    parser.add_argument("--new-head", action="store_true",
                        help="the weights are for other classes: start the last layer anew")
    parser.add_argument("--pixels", type=int, default=224, help="side of the square that is cut from an image in a "
                        "folder (default 224); images in a zip keep their size")
    _add_pruning(parser)
    _add_recipe(parser)
    parser.add_argument("--workers", type=int, default=_cores(), help="that read images (default %(default)s)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"),
                        help="auto takes an accelerator if there is one")


def _add_pruning(parser: argparse.ArgumentParser) -> None:
    add_block_size(parser)
    parser.add_argument("--pruning-ratio", type=float, default=0.0, metavar="P",
                        help="fraction of each layer's blocks to prune before the first step (default 0: dense)")
    parser.add_argument("--importance", choices=tuple(SCORES), default="l1", help="how blocks are scored")
    parser.add_argument("--scope", choices=SCOPES, default="layer",
                        help="where blocks compete: in their layer, their block row, or the whole model")
    parser.add_argument("--rearrange", nargs="?", const="swap", default="none", choices=("none", "sort", "swap"),
                        help="move channels first, so that blocks gather weight (swap if given alone)")
    parser.add_argument("--full", action="store_true", help="prune Linear layers too")
    parser.add_argument("--gradual", type=float, metavar="SHARE", help="let the ratio grow (cubic) during this share "
                        "of the steps, such as 0.5, in place of pruning at once")
    parser.add_argument("--straight-through", action="store_true",
                        help="with --gradual: pruned blocks get gradients and may come back")
    parser.add_argument("--alternate", type=float, metavar="SHARE", help="prune and set free in turns (AC/DC) during "
                        "this share of the steps, in place of pruning at once")
    parser.add_argument("--dense-phases", type=int, metavar="COUNT", help="with --alternate: how often (default 2)")
    parser.add_argument("--repair", type=int, metavar="IMAGES", help="start from the label-free repair on so many "
                        "training images, such as 256, in place of plain pruning")
    parser.add_argument("--channels", type=_share, metavar="SHARE", help="with --repair: cut whole channels first, "
                        "until this share of the multiply-adds is gone; auto for as many as pay")
    parser.add_argument("--decay", type=float, default=0.0, help="with --straight-through: SR-STE's decay of pruned "
                        "weights, such as 2e-4 (default 0)")
    parser.add_argument("--distil", type=float, metavar="WEIGHT",
                        help="learn from the network one starts from with this share of the loss, such as 0.5")


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    from onexn_plugins.training.recipe import PRECISIONS, SCHEDULES

    parser.add_argument("--epochs", type=int, default=10, help="passes over the images (default 10)")
    parser.add_argument("--batch-size", type=int, default=256, help="images per step, over all devices (default 256)")
    parser.add_argument("--eval-batch-size", type=int, default=256, help="held-out images at a time (default 256)")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate (default 0.01)")
    parser.add_argument("--schedule", choices=SCHEDULES, default="cos", help="of the learning rate (default cos)")
    parser.add_argument("--decay-epochs", type=float, default=30.0, help="of step and exp: how often (default 30)")
    parser.add_argument("--decay-factor", type=float, default=0.1, help="of step and exp: by how much (default 0.1)")
    parser.add_argument("--warmup-epochs", type=float, default=0.0, help="the rate rises so long (default 0)")
    parser.add_argument("--momentum", type=float, default=0.9, help="of SGD (default 0.9)")
    parser.add_argument("--nesterov", action="store_true", help="Nesterov's momentum")
    parser.add_argument("--weight-decay", type=float, default=4e-5, help="of SGD (default 4e-5)")
    parser.add_argument("--label-smoothing", type=float, default=0.0, help="0 to below 1 (default 0)")
    parser.add_argument("--precision", choices=PRECISIONS, default="32-true", help="bf16-mixed is faster where the "
                        "device has it (default 32-true)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default 0)")


def run(arguments: argparse.Namespace) -> Result:
    from onexn_plugins.training import Recipe, read_data, start_fabric, train

    recipe = Recipe(
        epochs=arguments.epochs, batch_size=arguments.batch_size, eval_batch_size=arguments.eval_batch_size,
        lr=arguments.lr, momentum=arguments.momentum, nesterov=arguments.nesterov, weight_decay=arguments.weight_decay,
        schedule=arguments.schedule, decay_epochs=arguments.decay_epochs, decay_factor=arguments.decay_factor,
        warmup_epochs=arguments.warmup_epochs, label_smoothing=arguments.label_smoothing,
        precision=arguments.precision, seed=arguments.seed)
    data = read_data(arguments.data, pixels=arguments.pixels, seed=arguments.seed)
    model = start_model(arguments.model, arguments.weights, data.training, new_head=arguments.new_head)
    fabric = start_fabric(recipe.precision, arguments.device)
    with training_shown(f"training {arguments.model}", silent=arguments.json or fabric.global_rank > 0) as progress:
        trained = train(model, data, recipe, arguments.output, method=make_method(arguments, data.training),
                        fabric=fabric, workers=arguments.workers, progress=progress)
    return finish(trained, arguments.model, arguments.block_size, arguments.output)


def make_method(arguments: argparse.Namespace, images: Images) -> Method:
    """What the arguments say is done beside plain training.

    Raises:
        OneXNError: they contradict each other.
    """
    from onexn_plugins.training import AlternatingBlocks, Blocks, Distilled, GradualBlocks, Method, RepairedBlocks

    _check_flags(arguments)
    options = {"block_size": arguments.block_size, "pruning_ratio": arguments.pruning_ratio,
               "rearrange": arguments.rearrange, "full": arguments.full, "seed": arguments.seed}
    scored = {**options, "score": arguments.importance, "scope": arguments.scope}
    method: Method
    if not arguments.pruning_ratio:
        method = Method()
    elif arguments.gradual is not None:
        method = GradualBlocks(until=arguments.gradual, straight_through=arguments.straight_through,
                               decay=arguments.decay, **scored)
    elif arguments.alternate is not None:
        phases = {} if arguments.dense_phases is None else {"dense_phases": arguments.dense_phases}
        method = AlternatingBlocks(until=arguments.alternate, **phases, **scored)
    elif arguments.repair is not None:
        method = RepairedBlocks(images, count=arguments.repair, channels=arguments.channels or 0.0, **options)
    else:
        method = Blocks(**scored)
    return method if arguments.distil is None else Distilled(method, weight=arguments.distil)


def _check_flags(arguments: argparse.Namespace) -> None:
    """Raise OneXNError where a flag would decide nothing."""
    given = {name for name, default in _OF_PRUNING.items() if getattr(arguments, name) != default}
    if given and not arguments.pruning_ratio:
        raise OneXNError(_flag(min(given)), "says how to prune, and needs --pruning-ratio", "Give both")
    for name, needed in _NEEDS.items():
        if name in given and needed not in given:
            raise OneXNError(_flag(name), f"needs {_flag(needed)}", "Give both")
    ways = [name for name in _WAYS if name in given]
    if len(ways) > 1:
        raise OneXNError(_flag(ways[1]), f"and {_flag(ways[0])} are two ways to prune", "Give one of them")
    if "repair" in given and given & {"importance", "scope"}:
        raise OneXNError(_flag(min(given & {"importance", "scope"})), "says nothing to --repair, which ranks blocks by "
                         "what their removal costs", "Leave one of them out")


def _share(text: str) -> float | str:
    return text if text == "auto" else float(text)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def start_model(name: str, weights: Path | None, images: Images, *, new_head: bool = False) -> nn.Module:
    """The network to train, with an output for each class where the weights do not say otherwise."""
    from onexn_plugins.zoo import load_all_but_head, load_model

    if weights is not None and not new_head:
        return load_model(name, weights)
    model = load_model(name, classes=len(images.classes))
    if weights is not None:
        load_all_but_head(model, weights)
    return model


@contextmanager
def training_shown(title: str, *, silent: bool) -> Iterator[Callable[[str], None]]:
    """A running clock on the error stream, and where to send notes."""
    from onexn_plugins.progress import Progress

    if silent:
        yield lambda note: None
        return
    progress = Progress(stream=sys.stderr)
    with progress.stage(title):
        yield progress.step


def finish(trained: Trained, name: str, block_size: int, folder: Path) -> Result:
    """Fold the masks, save the weights, and say what came out."""
    from onexn_plugins import fold, measure

    model = fold(trained.model)
    report = measure(model, block_size)
    if is_first_process():
        save_weights(model, folder / WEIGHTS)
    values: dict[str, Any] = {
        "model": name, "output": str(folder), "weights": str(folder / WEIGHTS), "epochs": trained.history,
        "accuracy": vars(trained.accuracy), "sparsity": report.sparsity._asdict()}
    accuracy = trained.accuracy
    lines = [to_text(Table(COLUMNS, tuple(trained.history))),
             f"top-1 {accuracy.top1:.2%}, top-5 {accuracy.top5:.2%} of {accuracy.images:,} held-out images"]
    unreadable = accuracy.unreadable + max(entry["unreadable"] for entry in trained.history)
    if unreadable:
        lines.append(f"{unreadable} images could not be read and were skipped; log.jsonl names them")
    lines.append(f"removed from prunable layers: {report.sparsity.blocks:.1%} of the blocks")
    lines.append(f"weights: {folder / WEIGHTS}")
    return Result(values, "\n".join(lines))


def is_first_process() -> bool:
    """Of those that torchrun started."""
    return int(os.environ.get("RANK", 0)) == 0


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores) if cores > 1 else 0
