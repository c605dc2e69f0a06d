"""Models by name: torchvision's, timm's, or any Python `module:callable`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from onexn_plugins.checkpoint import is_checkpoint
from onexn_plugins.errors import MissingDependencyError, OneXNError, first_line
from onexn_plugins.plain_modules import check_plain
from onexn_plugins.weights import load_all_but_head, load_weights, other_classes, read_weights, renamed

__all__ = ["import_torchvision", "load_all_but_head", "load_model", "load_weights"]

# Names that papers use and libraries do not.
ALIASES = {"mobilenet_v1": "timm/mobilenetv1_100"}
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


def load_model(name: str, weights: str | Path | None = None, *, classes: int | None = None) -> nn.Module:
    """A model in eval mode.

    Args:
        name: a torchvision classification model ("mobilenet_v2"), a timm model ("timm/efficientnet_lite0"; the
            prefix may go where torchvision has no model of that name), or "package.module:callable" for a
            function that returns a module; the current directory is searched too.
        weights: a state dict to load, .safetensors or written by torch.save. Without it weights are random (seed 0),
            which serves for speed and never for accuracy.
        classes: outputs of a torchvision or timm model; by default as many as the weights have, and 1000 without.

    Raises:
        OneXNError: the name or file does not exist, or the weights are another model's.
    """
    state = None if weights is None or is_checkpoint(weights) else read_weights(weights)
    torch.manual_seed(0)
    model = _from_callable(name) if ":" in name else _from_library(name, classes)
    if state is not None and classes is None and ":" not in name:
        head = other_classes(model, renamed(model, state, str(weights)))
        if head is not None:
            torch.manual_seed(0)
            model = _from_library(name, head)
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def _from_callable(name: str) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        make = getattr(importlib.import_module(module_name), attribute)
        model = make()
    except Exception as error:
        raise OneXNError(name, f"cannot be made: {first_line(error)}",
                         "Give an importable module:callable that returns a torch module") from error
    if not isinstance(model, nn.Module):
        raise OneXNError(name, f"returned a {type(model).__name__}, not a torch module",
                         "Let the callable return the model")
    check_plain(model, name)
    return model


def _from_library(name: str, classes: int | None = None) -> nn.Module:
    torchvision = import_torchvision()
    name, options = ALIASES.get(name, name), {} if classes is None else {"num_classes": classes}
    models = importlib.import_module(f"{torchvision.__name__}.models")
    known = [] if name.startswith("timm/") else models.list_models(module=models)
    if name in known:
        return models.get_model(name, weights=None, **options, **_quiet(name))
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise OneXNError(name, "torchvision has no model of this name and timm is not installed",
                         _near(name, known) or "Check the name, or install timm") from error
    timm_name = name.removeprefix("timm/")
    if not timm.is_model(timm_name):
        raise OneXNError(name, "neither torchvision nor timm has a model of this name",
                         _near(timm_name, [*known, *timm.list_models()]) or "Give module:callable for your own model")
    return timm.create_model(timm_name, **options)


def _near(name: str, known: Sequence[str]) -> str:
    """Names that are written nearly so, as a question; "" where there is none."""
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.75)
    return f"Did you mean {' or '.join(close)}" if close else ""


def _quiet(name: str) -> dict[str, bool]:
    """googlenet and inception_v3 warn about a coming change of their initialisation unless told."""
    return {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
