"""Models by name: torchvision's, timm's, or any Python `module:callable`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.errors import MissingDependencyError, OneXNError

__all__ = ["import_torchvision", "load_all_but_head", "load_model", "load_weights", "read_weights"]

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
    state = None if weights is None else read_weights(weights)
    torch.manual_seed(0)
    model = _from_callable(name) if ":" in name else _from_library(name, classes)
    if state is not None:
        head = _other_head(model, state)
        if head is not None and classes is None and ":" not in name:
            torch.manual_seed(0)
            model = _from_library(name, head)
        _load(model, state, Path(str(weights)))
    return model.eval()


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a state dict into the model, strictly; nothing is changed where it does not fit."""
    _load(model, read_weights(path), Path(path))


def load_all_but_head(model: nn.Module, path: str | Path) -> None:
    """Load a state dict of a model with another number of classes; the last layer keeps the weights it has."""
    state = read_weights(path)
    if _other_head(model, state) is not None:
        mine = model.state_dict()
        state = {key: value if value.shape == mine[key].shape else mine[key] for key, value in state.items()}
    _load(model, state, Path(path))


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A state dict, .safetensors or written by torch.save, also in {"state_dict": ...} and as DataParallel names it.

    Raises:
        OneXNError: there is no such file, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise OneXNError(str(path), "there is no such file", "Check the path of the weights")
    state: Any
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise OneXNError(str(path), f"cannot be read as weights: {_first_line(error)}",
                         "Save a state dict with torch.save or safetensors") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise OneXNError(str(path), "holds no state dict", "Save model.state_dict() with torch.save or safetensors")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _other_head(model: nn.Module, state: dict[str, Tensor]) -> int | None:
    """How many classes the weights are for, where they differ from the model in the last layer alone."""
    mine = model.state_dict()
    if set(mine) != set(state):
        return None
    differing = [key for key in mine if mine[key].shape != state[key].shape]
    classes = {(mine[key].shape[0], state[key].shape[0]) for key in differing if mine[key].dim() and state[key].dim()}
    last = list(mine)[-len(differing):] if differing else []
    return classes.pop()[1] if len(classes) == 1 and differing == last else None


def _load(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    differing = sorted(set(expected) ^ set(state)) or [
        key for key in expected if expected[key].shape != state[key].shape
    ]
    if differing:
        key = differing[0]
        theirs, mine = (tuple(entry[key].shape) if key in entry else "absent" for entry in (state, expected))
        raise OneXNError(str(path), f"holds another model's weights; {key!r} differs: {theirs} in the file, {mine} in "
                         "the model", "Load it into the model it was saved from")
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


def _from_library(name: str, classes: int | None = None) -> nn.Module:
    torchvision = import_torchvision()
    name, options = ALIASES.get(name, name), {} if classes is None else {"num_classes": classes}
    if not name.startswith("timm/"):
        models = importlib.import_module(f"{torchvision.__name__}.models")
        if name in models.list_models(module=models):
            return models.get_model(name, weights=None, **options, **_quiet(name))
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
    return timm.create_model(timm_name, **options)


def _quiet(name: str) -> dict[str, bool]:
    """googlenet and inception_v3 warn about a coming change of their initialisation unless told."""
    return {"init_weights": True} if name in ("googlenet", "inception_v3") else {}


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
