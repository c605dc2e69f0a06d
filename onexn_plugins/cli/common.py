"""What the verbs share: their result, and reading models and inputs from arguments."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.files import written_aside
from onexn_plugins.repair.images import Preprocess
from onexn_plugins.weights import TORCH_SUFFIXES, WEIGHT_SUFFIXES
from onexn_plugins.zoo import load_model


@dataclass(frozen=True)
class Result:
    """What a verb found: values for --json, the same as text for people."""

    values: dict[str, Any]
    text: str
    exit_code: int = 0


def add_model(parser: argparse.ArgumentParser) -> None:
    """MODEL with its weights and the shape it is run on."""
    parser.add_argument("model", metavar="MODEL", help="torchvision or timm model name, or module:callable")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="state dict to load (.safetensors or torch.save)")
    _add_shapes(parser, "shape of the example input (default 1,3,224,224)", (1, 3, 224, 224))


def add_onnx_shapes(parser: argparse.ArgumentParser) -> None:
    """The shapes of an ONNX file's inputs that have dynamic dimensions."""
    _add_shapes(parser, "shape of an input that the file leaves dynamic", None)


def _add_shapes(parser: argparse.ArgumentParser, text: str, default: tuple[int, ...] | None) -> None:
    parser.add_argument("--input-shape", type=named_shape, action=_Shapes, default=default,
                        metavar="[NAME=]1,3,320,320", help=f"{text}; once per input, by name where there are several")
    parser.set_defaults(input_shapes={})


class _Shapes(argparse.Action):
    """Collects shapes by name in `input_shapes`; `input_shape` is the last of them."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> None:
        name, sizes = values
        if name in namespace.input_shapes:
            raise argparse.ArgumentError(self, f"{name or 'a shape'} was given twice; name each input: NAME=1,3,8,8")
        namespace.input_shapes = {**namespace.input_shapes, name: sizes}
        namespace.input_shape = sizes


def add_block_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--block-size", type=int, default=4, metavar="N",
                        help="N, output channels per block (default 4)")


def add_photos(parser: argparse.ArgumentParser, labelled: bool = False, required: bool = True) -> None:
    """--images with what makes a photo an input; ImageNet's usual numbers by default."""
    parser.add_argument("--images", type=Path, required=required, metavar="DIR", help=(
        "folder of photos with a sub-folder per class, in the order of the model's classes" if labelled
        else "folder of photos like those the model will see, read with its sub-folders; labels are not used"))
    parser.add_argument("--crop", type=float, default=0.875, metavar="SHARE",
                        help="share of a photo's short side that the network sees (default 0.875)")
    parser.add_argument("--mean", type=numbers, default=(0.485, 0.456, 0.406), metavar="R,G,B",
                        help="subtracted from pixels from 0 to 1 (default: ImageNet's)")
    parser.add_argument("--std", type=numbers, default=(0.229, 0.224, 0.225), metavar="R,G,B",
                        help="that divides them then (default: ImageNet's)")


def preprocess(arguments: argparse.Namespace) -> Preprocess:
    """From a photo to an input, as the arguments say; its size is that of --input-shape.

    Raises:
        OneXNError: that is no square, and photos are cut to squares.
    """
    sizes = arguments.input_shape
    if len(sizes) != 4 or sizes[-1] != sizes[-2]:
        raise OneXNError("--input-shape", f"{','.join(map(str, sizes))} is no shape of square images, to which photos "
                         "are cut", "Give one such as 1,3,224,224; from Python, repair and evaluate take a preprocess")
    return Preprocess(sizes[-1], arguments.crop, arguments.mean, arguments.std)


def numbers(text: str) -> tuple[float, ...]:
    """`0.5,0.5,0.5` as three numbers."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of three numbers such as 0.5,0.5,0.5")
    return values


def add_tuning(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tuning", type=Path, metavar="FILE", help="tiles and block sizes that `onexn tune` found")


def add_strict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strict", action="store_true", help="infinities and NaN in inputs go wherever ONNX takes "
                        "them: no zero block is skipped, no Winograd")


def shape(text: str) -> tuple[int, ...]:
    """`1,3,224,224` as numbers."""
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of positive sizes such as 1,3,224,224")
    return sizes


def named_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`images=1,3,224,224` as a name, "" where there is none, and numbers."""
    name, _, sizes = text.rpartition("=")
    return name, shape(sizes)


def is_onnx(name: str) -> bool:
    return name.endswith(".onnx")


def read_model(arguments: argparse.Namespace) -> nn.Module:
    """The torch model that the arguments name."""
    if is_onnx(arguments.model):
        raise OneXNError(arguments.model, "is an ONNX file, and this needs a torch model",
                         "Give a torchvision or timm model name or module:callable")
    if Path(arguments.model).suffix in WEIGHT_SUFFIXES:
        raise OneXNError(arguments.model, "is a file of weights, and what they are the weights of is not in it",
                         f"Give the model's name or module:callable, and --weights {arguments.model}")
    return load_model(arguments.model, arguments.weights)


def in_float32(model: nn.Module) -> nn.Module:
    """The model, a half-precision one in float32, which is what compiled kernels compute in."""
    half = any(value.dtype in (torch.float16, torch.bfloat16) for value in model.parameters())
    return model.float() if half else model


def example_input(model: nn.Module, arguments: argparse.Namespace) -> Tensor | dict[str, Tensor]:
    """Reproducible random inputs of the shapes asked for, of the model's own type; by name where they have names."""
    generator = torch.Generator().manual_seed(0)
    dtype = next((value.dtype for value in model.parameters() if value.is_floating_point()), torch.float32)
    shapes = arguments.input_shapes or {"": arguments.input_shape}
    if len(shapes) > 1 and "" in shapes:
        raise OneXNError("--input-shape", "one of several has no name", "Give each as NAME=1,3,224,224")
    inputs = {name: torch.randn(sizes, generator=generator).to(dtype) for name, sizes in shapes.items()}
    return inputs.get("", inputs)


def save_weights(model: nn.Module, path: Path) -> None:
    """The state dict, whole or not at all: as torch.save writes it where the name says so, else as safetensors."""
    from safetensors.torch import save_file

    state = {name: tensor.detach().contiguous().clone() for name, tensor in model.state_dict().items()}
    with written_aside(path) as unfinished:
        if path.suffix in TORCH_SUFFIXES:
            content = io.BytesIO()  # torch's own writer reports a full disk as an internal error
            torch.save(state, content)
            unfinished.write_bytes(content.getbuffer())
        else:
            save_file(state, unfinished)


@contextmanager
def stage(arguments: argparse.Namespace, title: str) -> Iterator[None]:
    """Show a running clock on the error stream while something long runs; --json stays silent."""
    from onexn_plugins.progress import Progress

    if arguments.json:
        yield
        return
    with Progress(stream=sys.stderr).stage(title):
        yield
