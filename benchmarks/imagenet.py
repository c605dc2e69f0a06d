"""The paper's own training command (github.com/lmbxmu/1xN, imagenet.py), flag for flag, on this project's loop.

    python -m benchmarks.imagenet --gpus 0 --arch mobilenet_v1 --job_dir ./experiment/ --data_path DATA \\
        --pretrained_model PRETRAINED --pr_target 0.5 --N 4 --conv_type BlockL1Conv --train_batch_size 256 \\
        --eval_batch_size 256 --rearrange
    python -m benchmarks.imagenet --gpus 0 --arch mobilenet_v1 --data_path DATA --conv_type DenseConv \\
        --evaluate experiment/model.safetensors --eval_batch_size 256

Defaults are the paper's. A flag that has no meaning here is said to have none. What differs: learning rates fall from
step to step, not from epoch to epoch; several GPUs are used by starting this with torchrun; --rearrange searches by
swapping channels, and --rearrange sort does it the paper's way.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from onexn_plugins import export_onnx
from onexn_plugins.cli.train import finish, is_first_process, start_model, training_shown
from onexn_plugins.errors import OneXNError
from onexn_plugins.files import written_aside
from onexn_plugins.training import Blocks, Method, Recipe, evaluate, read_data, read_evaluation, start_fabric, train
from onexn_plugins.training.data import ImageData
from onexn_plugins.training.loop import STATE
from onexn_plugins.zoo import load_model

# The paper's exp schedule multiplies by this every epoch.
EXP_FACTOR = 0.96
SCORES = {"BlockL1Conv": "l1", "BlockRandomConv": "random"}
# How to prune, with the paper's defaults.
PRUNING = {"pr_target": 0.5, "N": 16, "rearrange": None, "full": False}
# Flags that the paper's code takes and that decide nothing here, with the reason.
MEANINGLESS = {
    "config": "settings are flags",
    "data_set": "--data_path says which images",
    "lr_decay_step": "it is for CIFAR; --lr_decay_freq is how often --lr_type step and exp decay",
    "random_rule": "weights come from --pretrained_model",
    "test_only": "--evaluate FILE evaluates",
    "first_layer_type": "the first convolution is never pruned",
    "bn_type": "networks are torchvision's and timm's",
    "init": "networks are torchvision's and timm's",
    "mode": "networks are torchvision's and timm's",
    "nonlinearity": "networks are torchvision's and timm's",
    "debug": "stop the run at any time; --resume goes on",
}


def main(argv: list[str] | None = None) -> int:
    """0 done, 2 bad input."""
    arguments = _parser().parse_args(argv)
    try:
        for note in notes(arguments):
            _say(note)
        _evaluate(arguments) if arguments.evaluate else _train(arguments)
    except OneXNError as error:
        print(f"benchmarks.imagenet: {error}", file=sys.stderr)
        return 2
    return 0


def notes(arguments: argparse.Namespace) -> list[str]:
    """What is said of flags that do not do here what they did there."""
    said = [f"--{name.replace('_', '-') if name == 'first_layer_type' else name} has no meaning here: {why}"
            for name, why in MEANINGLESS.items() if getattr(arguments, name) not in (None, False)]
    if arguments.gpus is not None and not torch.cuda.is_available():
        said.append(f"--gpus {' '.join(map(str, arguments.gpus))}: there is no GPU here, so the CPU is used")
    elif arguments.gpus is not None and len(arguments.gpus) > 1:
        said.append("--gpus: several are used by torchrun --nproc-per-node "
                    f"{len(arguments.gpus)} -m benchmarks.imagenet ...; this process uses one")
    if arguments.evaluate:
        return said + [f"--{name} has no meaning with --evaluate, which trains and prunes nothing"
                       for name in ("resume", "rearrange", "full", "pretrained_model") if getattr(arguments, name)]
    if arguments.conv_type == "DenseConv":
        said += [f"--{name} has no meaning with DenseConv, which prunes nothing" for name, default in PRUNING.items()
                 if getattr(arguments, name) != default]
    elif arguments.rearrange and arguments.conv_type == "BlockRandomConv":
        said.append("--rearrange has no meaning with BlockRandomConv: nothing is gained for blocks that are not "
                    "chosen by their weights")
    if not arguments.pretrained_model:
        said.append("no --pretrained_model: training starts from random weights")
    if arguments.warmup_length >= arguments.num_epochs:
        said.append(f"--warmup_length {arguments.warmup_length} is not less than --num_epochs {arguments.num_epochs}: "
                    "half the epochs are warm-up")
    return said


def recipe(arguments: argparse.Namespace) -> Recipe:
    """The paper's settings in this project's words."""
    exp = arguments.lr_type == "exp"
    warmup = arguments.warmup_length if arguments.warmup_length < arguments.num_epochs else arguments.num_epochs / 2
    return Recipe(
        epochs=arguments.num_epochs, batch_size=arguments.train_batch_size, eval_batch_size=arguments.eval_batch_size,
        lr=arguments.lr, momentum=arguments.momentum, nesterov=arguments.nesterov, weight_decay=arguments.weight_decay,
        schedule=arguments.lr_type, decay_epochs=1 if exp else arguments.lr_decay_freq,
        decay_factor=EXP_FACTOR if exp else arguments.lr_gamma, warmup_epochs=warmup,
        label_smoothing=arguments.label_smoothing, precision=arguments.precision, seed=arguments.seed)


def method(arguments: argparse.Namespace) -> Method:
    """DenseConv trains the network as it is."""
    if arguments.conv_type == "DenseConv":
        return Method()
    rearranged = arguments.conv_type == "BlockL1Conv" and arguments.rearrange
    return Blocks(block_size=arguments.N, pruning_ratio=arguments.pr_target, score=SCORES[arguments.conv_type],
                  rearrange=arguments.rearrange if rearranged else "none", full=arguments.full, seed=arguments.seed)


def _train(arguments: argparse.Namespace) -> None:
    folder = Path(arguments.job_dir)
    if not arguments.resume and (folder / STATE).is_file():
        raise OneXNError(str(folder), "holds a run", "Add --resume to go on with it, or give another --job_dir")
    if arguments.resume and not (folder / STATE).is_file():
        raise OneXNError(str(folder), "holds no run to resume", "Leave --resume out, or give the --job_dir of the run")
    data = _data(arguments)
    model = start_model(arguments.arch, arguments.pretrained_model, data.training)
    fabric = start_fabric(arguments.precision, _device(arguments))
    with training_shown(f"training {arguments.arch}", silent=fabric.global_rank > 0) as progress:
        trained = train(model, data, recipe(arguments), folder, method=method(arguments), fabric=fabric,
                        workers=arguments.workers, progress=progress)
    result = finish(trained, arguments.arch, arguments.N, folder)
    _say(result.text)
    if is_first_process():
        best = max(trained.history, key=lambda entry: entry["top1"])
        with written_aside(folder / "result.json") as aside:
            aside.write_text(json.dumps({**result.values, "best": best}, indent=1) + "\n", encoding="utf-8")
        if arguments.export_onnx:
            _export(trained.model, data.held_out.shape, folder, arguments.N)


def _evaluate(arguments: argparse.Namespace) -> None:
    images = read_evaluation(arguments.data_path, pixels=arguments.pixels)
    fabric = start_fabric(arguments.precision, _device(arguments))
    bare = load_model(arguments.arch, arguments.evaluate)
    model = fabric.setup(bare)
    with training_shown(f"evaluating {arguments.arch}", silent=fabric.global_rank > 0) as progress:
        accuracy = evaluate(fabric, model, images, arguments.eval_batch_size, workers=arguments.workers,
                            progress=progress)
    _say(f"top-1 {accuracy.top1:.3%}, top-5 {accuracy.top5:.3%} of {accuracy.images:,} images"
         + (f"; {accuracy.unreadable} could not be read" if accuracy.unreadable else ""))
    if arguments.export_onnx and is_first_process():
        folder = Path(arguments.job_dir)
        folder.mkdir(parents=True, exist_ok=True)
        _export(bare, images.shape, folder, arguments.N)


def _export(model: nn.Module, shape: tuple[int, int, int], folder: Path, block_size: int) -> None:
    example = torch.zeros(1, *shape)
    _say(f"ONNX: {export_onnx(model.cpu().float(), example, folder / 'model.onnx', block_size=block_size)}")


def _data(arguments: argparse.Namespace) -> ImageData:
    if not arguments.use_dali:
        return read_data(arguments.data_path, pixels=arguments.pixels, seed=arguments.seed)
    from onexn_plugins.training.data.dali import read_folder_by_dali

    return read_folder_by_dali(arguments.data_path, pixels=arguments.pixels, seed=arguments.seed)


def _device(arguments: argparse.Namespace) -> str:
    if arguments.gpus is None or not torch.cuda.is_available():
        return "auto"
    if arguments.gpus[0] >= torch.cuda.device_count():
        raise OneXNError("--gpus", f"there is no GPU {arguments.gpus[0]}; there are {torch.cuda.device_count()}",
                         "Number them from 0")
    torch.cuda.set_device(arguments.gpus[0])
    return "cuda"


def _say(text: str) -> None:
    if is_first_process():
        print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imagenet", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--gpus", type=int, nargs="+", help="number of the GPU (default: one, if there is one)")
    add("--arch", default="mobilenet_v2", help="mobilenet_v1, mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small, "
        "resnet50, or any torchvision or timm name (default %(default)s)")
    add("--data_path", type=Path, required=True, help="folder with train/ or ILSVRC2012_img_train/, and val/")
    add("--job_dir", default="experiments/", help="where state, log and results are kept (default %(default)s)")
    add("--resume", action="store_true", help="go on with the run in --job_dir")
    add("--pretrained_model", "--pretrain_model", type=Path, metavar="FILE", help="state dict to start from")
    add("--evaluate", "--pruned_model", type=Path, metavar="FILE", help="evaluate this state dict and stop")
    add("--use_dali", action="store_true", help="read images by NVIDIA DALI, which has to be installed")
    add("--export_onnx", action="store_true", help="write model.onnx into --job_dir in the end")
    add("--workers", type=int, default=4, help="processes that read images (default %(default)s)")
    add("--pixels", type=int, default=224, help="side of the square that is cut from an image (default %(default)s)")
    _add_pruning(parser)
    _add_recipe(parser)
    for name in MEANINGLESS:
        flag = f"--{'first-layer-type' if name == 'first_layer_type' else name}"
        if name in ("test_only", "debug"):
            add(flag, dest=name, action="store_true", help=argparse.SUPPRESS)
        else:
            add(flag, dest=name, nargs="+" if name == "lr_decay_step" else None, help=argparse.SUPPRESS)
    return parser


def _add_pruning(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--conv_type", default="BlockL1Conv", choices=("BlockL1Conv", "BlockRandomConv", "DenseConv"),
        help="how blocks are chosen; DenseConv prunes nothing (default %(default)s)")
    add("--pr_target", type=float, default=PRUNING["pr_target"],
        help="fraction of blocks to prune (default %(default)s)")
    add("--N", type=int, default=PRUNING["N"], help="output channels per block (default %(default)s)")
    add("--rearrange", nargs="?", const="swap", choices=("swap", "sort"), help="move channels first")
    add("--full", action="store_true", help="prune fully connected layers too")


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    add: Any = parser.add_argument
    add("--num_epochs", type=int, default=180, help="(default %(default)s)")
    add("--train_batch_size", type=int, default=256, help="(default %(default)s)")
    add("--eval_batch_size", type=int, default=256, help="(default %(default)s)")
    add("--optimizer", default="sgd", choices=("sgd",), help="(default %(default)s)")
    add("--momentum", type=float, default=0.9, help="(default %(default)s)")
    add("--nesterov", action="store_true", help="Nesterov's momentum")
    add("--lr", type=float, default=0.01, help="(default %(default)s)")
    add("--lr_type", "--lr_policy", default="cos", choices=("cos", "step", "exp", "fixed"),
        help="schedule of the learning rate (default %(default)s)")
    add("--lr_decay_freq", "--lr_adjust", type=int, default=30, help="epochs between steps (default %(default)s)")
    add("--lr_gamma", type=float, default=0.1, help="a step multiplies by this (default %(default)s)")
    add("--warmup_length", type=int, default=5, help="epochs of warm-up (default %(default)s)")
    add("--weight_decay", type=float, default=4e-5, help="(default %(default)s)")
    add("--label_smoothing", "--label-smoothing", type=float, default=0.0, help="(default %(default)s)")
    add("--precision", default="32-true", choices=("32-true", "bf16-mixed"), help="(default %(default)s)")
    add("--seed", type=int, default=0, help="(default %(default)s)")


if __name__ == "__main__":
    sys.exit(main())
