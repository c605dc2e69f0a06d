"""Models by name: torchvision's, timm's, or any Python `module:callable`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from onexn_plugins.errors import MissingDependencyError, OneXNError

__all__ = ["import_torchvision", "load_model", "load_weights"]

# Library objects unregister their schemas when collected, so they live as long as the process.
_declared: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """torchvision, also where its wheel was built for another torch.

    A torchvision wheel built for CUDA fails on a CPU-only torch with "operator torchvision::nms does not exist".
    Its classification models need none of those operators, so declaring their schemas is enough.

    Raises:
        MissingDependencyError: torchvision is not installed.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torchvision", "demo") from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
    return importlib.import_module("torchvision")


def load_model(name: str, weights: str | Path | None = None) -> nn.Module:
    """A model in eval mode.

    Args:
        name: a torchvision classification model ("mobilenet_v2"), a timm model ("timm/efficientnet_lite0"; the
            prefix may go where torchvision has no model of that name), or "package.module:callable" for a
            function that returns a module; the current directory is searched too.
        weights: a state dict to load, .safetensors or written by torch.save. Without it weights are random (seed 0),
            which serves for speed and never for accuracy.

    Raises:
        OneXNError: the name or file does not exist, or the weights are another model's.
    """
    torch.manual_seed(0)
    model = _from_callable(name) if ":" in name else _from_library(name)
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a state dict into the model, strictly; nothing is changed where it does not fit."""
    path = Path(path)
    if not path.is_file():
        raise OneXNError(str(path), "there is no such file", "Check the path of the weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise OneXNError(str(path), f"cannot be read as weights: {_first_line(error)}",
                         "Save a state dict with torch.save or safetensors") from error
    expected = model.state_dict()
    differing = sorted(set(expected) ^ set(state)) or [
        key for key in expected if expected[key].shape != state[key].shape
    ]
    if differing:
        raise OneXNError(str(path), f"holds another model's weights; {differing[0]!r} differs",
                         "Load it into the model it was saved from")
    model.load_state_dict(state)


def _from_callable(name: str) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        make = getattr(importlib.import_module(module_name), attribute)
        model = make()
    except Exception as error:
        raise OneXNError(name, f"cannot be made: {_first_line(error)}",
                         "Give an importable module:callable that returns a torch module") from error
    if not isinstance(model, nn.Module):
        raise OneXNError(name, f"returned a {type(model).__name__}, not a torch module",
                         "Let the callable return the model")
    return model


def _from_library(name: str) -> nn.Module:
    torchvision = import_torchvision()
    if not name.startswith("timm/"):
        models = importlib.import_module(f"{torchvision.__name__}.models")
        if name in models.list_models(module=models):
            return models.get_model(name, weights=None, **_quiet(name))
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise OneXNError(name, "torchvision has no model of this name and timm is not installed",
                         "Check the name, or install timm") from error
    timm_name = name.removeprefix("timm/")
    if not timm.is_model(timm_name):
        close = timm.list_models(f"*{timm_name[:12]}*")[:3]
        raise OneXNError(name, "neither torchvision nor timm has a model of this name",
                         f"Did you mean {' or '.join(close)}" if close else "Give module:callable for your own model")
    return timm.create_model(timm_name)


def _quiet(name: str) -> dict[str, bool]:
    """googlenet and inception_v3 warn about a coming change of their initialisation unless told."""
    return {"init_weights": True} if name in ("googlenet", "inception_v3") else {}


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
