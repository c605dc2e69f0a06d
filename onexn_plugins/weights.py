"""State dicts as training scripts save them, read and unwrapped.

    under a key        {"state_dict": ..., "epoch": 3}, {"model": ...}, {"ema": ...}; Lightning's, timm's
    with a prefix      module. (DataParallel), _orig_mod. (torch.compile), model. or net. (a wrapper, as in Lightning)
    with more buffers  anchors, indices and totals that this version of the model does not keep
    as TorchScript     the scripted module's own
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.checkpoint import is_checkpoint, load_checkpoint
from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.masking import fold

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
WEIGHT_SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")
# Where checkpoints keep the weights; an average is last, for whoever asks for it by name.
KEYS = ("state_dict", "model_state_dict", "model", "model_state", "net", "network", "weights", "params", "generator",
        "ema", "state_dict_ema", "model_ema", "params_ema")
PREFIXES = ("module.", "model.", "net.", "network.", "backbone.", "encoder.")
# What torch puts into the name of a compiled, sharded or checkpointed module, at any depth.
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
COUNTERS = ("num_batches_tracked",)
# What a layer learns is called so; beside it a file may hold buffers that the model does not have.
LEARNED = ("weight", "bias", "running_mean", "running_var")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file, out of whatever holds it; the names are still the file's.

    Raises:
        OneXNError: there is no such file, it cannot be read, or holds no state dict; the message says what it holds.
    """
    path = Path(path)
    if not path.is_file():
        raise OneXNError(str(path), "there is no such file", "Check the path of the weights")
    content = _content(path)
    state = _state(content)
    if state is None:
        raise OneXNError(str(path), f"holds no state dict, but {_describe(content)}",
                         "Save model.state_dict() with torch.save or safetensors")
    return state


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a file's state dict, or what `save_checkpoint` wrote, into the model; nothing is changed where it does not
    fit. The masks of a checkpoint become zeros.

    Raises:
        OneXNError: as read_weights; or names or shapes are not the model's, and no known prefix explains them.
    """
    if Path(path).is_file() and is_checkpoint(path):
        load_checkpoint(model, path)
        fold(model)
        return
    model.load_state_dict(fitted(model, read_weights(path), path))


def fitted(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """The state dict under the model's own names, without what is no part of it.

    Raises:
        OneXNError: it is another model's; names the first difference.
    """
    expected, found = model.state_dict(), renamed(model, state, path)
    wrong = next((key for key, value in expected.items() if found[key].shape != value.shape), None)
    if wrong is not None:
        raise OneXNError(str(path), f"holds another model's weights; {wrong!r} differs: {list(found[wrong].shape)} in "
                         f"the file, {list(expected[wrong].shape)} in the model",
                         "Load it into the model it was saved from, with as many classes")
    return found


def renamed(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """As fitted, whatever the shapes.

    Raises:
        OneXNError: no known prefix explains the names.
    """
    expected = model.state_dict()
    for names in _readings(state):
        found = {names[name]: value for name, value in state.items() if name in names}
        missing, more = set(expected) - set(found), set(found) - set(expected)
        if all(_last(name) in COUNTERS for name in missing) and not any(_last(name) in LEARNED for name in more):
            return {key: found.get(key, value) for key, value in expected.items()}
    raise _other_model(expected, state, path)


def load_all_but_head(model: nn.Module, path: str | Path) -> None:
    """As load_weights, of a model with another number of classes; the last layer keeps the weights it has."""
    found = renamed(model, read_weights(path), path)
    if other_classes(model, found) is not None:
        found = {key: found[key] if found[key].shape == value.shape else value
                 for key, value in model.state_dict().items()}
    model.load_state_dict(fitted(model, found, path))


def other_classes(model: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """How many classes weights under the model's names are for, where the last layer alone differs."""
    mine = model.state_dict()
    differing = [key for key in mine if mine[key].shape != state[key].shape]
    classes = {(mine[key].shape[0], state[key].shape[0]) for key in differing if mine[key].dim() and state[key].dim()}
    last = list(mine)[-len(differing):] if differing else []
    return classes.pop()[1] if len(classes) == 1 and differing == last else None


def _content(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            beginning = file.read(9)
        if beginning[8:] == b"{":  # behind the length of its header
            from safetensors.torch import load_file

            return load_file(path)
        return _scripted(path) or torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        # Unpickling objects of classes runs code of the file, which nobody asked for.
        raise OneXNError(str(path), "holds Python objects, such as a whole model, and reading those runs its code",
                         "Where you trust it: torch.save(torch.load(FILE, weights_only=False).state_dict(), FILE), or "
                         "the state_dict() of whatever model it holds") from error
    except Exception as error:
        raise OneXNError(str(path), f"cannot be read as weights: {first_line(error)}",
                         "Save model.state_dict() with torch.save or safetensors") from error


def _scripted(path: Path) -> dict[str, Tensor] | None:
    """The weights of a TorchScript archive; None for other files."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("/constants.pkl") for name in archive.namelist()):
            return None
    return dict(torch.jit.load(str(path), map_location="cpu").state_dict())


def _state(content: Any) -> dict[str, Tensor] | None:
    """The state dict, also inside of a checkpoint."""
    if not isinstance(content, Mapping) or not content:
        return None
    if all(isinstance(value, Tensor) for value in content.values()):
        return {str(name): value for name, value in content.items()}
    for key in KEYS:
        state = _state(content.get(key))
        if state is not None:
            return state
    # A state dict may hold something beside tensors, such as what a layer remembers of its quantisation.
    tensors = OrderedDict((str(name), value) for name, value in content.items() if isinstance(value, Tensor))
    return tensors if any(name.endswith(".weight") for name in tensors) else None


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dict of {', '.join(repr(name) for name in list(content)[:6]) or 'nothing'}"
    return f"a {type(content).__name__}"


def _readings(state: Mapping[str, Tensor]) -> Iterator[dict[str, str]]:
    """Ways to read the file's names: each maps those it keeps to the model's."""
    yield {name: name for name in state}
    names = {name: _unwrapped(name) for name in state}
    yield names
    while prefix := next((prefix for prefix in PREFIXES if any(new.startswith(prefix) for new in names.values())), ""):
        # What stands beside the prefixed model, a loss with weights for one, is no part of it.
        names = {name: new.removeprefix(prefix) for name, new in names.items() if new.startswith(prefix)}
        yield names


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _other_model(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: str | Path) -> OneXNError:
    missing, unknown = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    reasons = [f"{len(names)} {what}, such as {names[0]!r}" for names, what in (
        (missing, "of its weights are not in the file"), (unknown, "in the file are none of its")) if names]
    return OneXNError(str(path), f"holds another model's weights: {'; '.join(reasons)}",
                      "Load it into the model it was saved from; a prefix of all names may be what wraps it")
