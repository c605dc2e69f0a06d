"""`onexn evaluate`: top-1 and top-5 of a torch model, an ONNX file or a compiled network, on labelled photos."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onexn_plugins.cli.common import Result, add_model, add_photos, is_onnx, preprocess, stage
from onexn_plugins.errors import MissingDependencyError, OneXNError, first_line
from onexn_plugins.evaluation import Scores, Share, class_folders, evaluate, labelled_photos
from onexn_plugins.zoo import load_model

HELP = "Measure top-1 and top-5 of a model, an ONNX file or a compiled network on labelled photos."
EXAMPLE = "onexn evaluate mobilenet_v2 --weights repaired.safetensors --images imagenet/val"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_photos(parser, labelled=True)
    parser.add_argument("--limit", type=int, metavar="N", help="score N photos, evenly from all classes")


def run(arguments: argparse.Namespace) -> Result:
    photos = labelled_photos(arguments.images)
    if arguments.limit is not None:
        if arguments.limit < 1:
            raise OneXNError("--limit", f"must be 1 or more, got {arguments.limit}", "Leave it out for all photos")
        every = max(1.0, len(photos) / arguments.limit)
        photos = [photos[int(place * every)] for place in range(min(arguments.limit, len(photos)))]
    scores, batch = _scores(arguments)
    with stage(arguments, f"scoring {arguments.model} on {len(photos)} photos"):
        found = evaluate(scores, photos, preprocess(arguments),
                         classes=len(class_folders(arguments.images)), batch=batch)
    values = {"model": arguments.model, "top1": asdict(found.top1), "top5": asdict(found.top5),
              "images": found.images, "skipped": [list(each) for each in found.skipped]}
    lines = [f"top-1 {_written(found.top1)}, top-5 {_written(found.top5)} on {found.images} photos"]
    if found.skipped:
        lines.append(f"{len(found.skipped)} files could not be read, such as {found.skipped[0][0]}")
    return Result(values, "\n".join(lines))


def _written(share: Share) -> str:
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f}–{100 * share.high:.1f})"


def _scores(arguments: argparse.Namespace) -> tuple[Scores, int]:
    """What scores a batch, and how many images it takes at a time."""
    if is_onnx(arguments.model):
        return _of_onnx(arguments.model)
    if Path(arguments.model).is_dir():
        return _of_artefact(arguments.model)
    model = load_model(arguments.model, arguments.weights)

    def scores(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(images)

    return scores, 25


def _of_onnx(path: str) -> tuple[Scores, int]:
    if not Path(path).is_file():
        raise OneXNError(path, "there is no such file", "Check the path of the ONNX file")
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingDependencyError("onnxruntime", "tvm") from error
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise OneXNError(path, f"cannot be read: {first_line(error)}", "Export it again") from error
    described = session.get_inputs()[0]

    def scores(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {described.name: images.numpy()})[0])

    return _fixed(scores, described.shape, path)


def _of_artefact(path: str) -> tuple[Scores, int]:
    from onexn_plugins.tvm_backend import load

    compiled = load(path)

    def scores(images: Tensor) -> Tensor:
        given: Any = compiled.run(images.numpy())
        return torch.from_numpy((given[0] if isinstance(given, list) else given).copy())

    return _fixed(scores, compiled.inputs[0].shape, path)


def _fixed(scores: Scores, shape: Any, path: str) -> tuple[Scores, int]:
    """The same for a network that takes so many images at a time; the last batch is filled up."""
    count = shape[0] if shape and isinstance(shape[0], int) else 25

    def filled(images: Tensor) -> Tensor:
        missing = count - len(images)
        full = torch.cat([images, images[:1].expand(missing, *images.shape[1:])]) if missing else images
        if isinstance(shape[0], int) and list(full.shape) != list(shape):
            raise OneXNError(path, f"takes inputs of shape {tuple(shape)}, not {tuple(full.shape)}",
                             f"Give --input-shape {','.join(map(str, shape))}")
        return scores(full.contiguous())[: len(images)]

    return filled, count
