"""Checkpoints as training scripts save them load under the model's names, or say what they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.weights import load_weights


def make_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in state.items()}


class Compiled(nn.Module):
    """A part of it is compiled, as torch.compile(model.stem) leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.compile(nn.Conv2d(3, 8, 3), backend="eager")


WRAPPED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "as it is": lambda state: state,
    "DataParallel": lambda state: prefixed(state, "module."),
    "torch.compile": lambda state: prefixed(state, "_orig_mod."),
    "both": lambda state: prefixed(state, "module._orig_mod."),
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
    "model": lambda state: {"model": state, "args": {"lr": 0.1}},
    "ema": lambda state: {"ema": prefixed(state, "module."), "n_averaged": 5},
    "lightning": lambda state: {"pytorch-lightning_version": "2.0", "state_dict": {
        **prefixed(state, "model."), "criterion.weight": torch.ones(3)}, "callbacks": {}},
    "swa": lambda state: {**prefixed(state, "module."), "n_averaged": torch.tensor(3)},
    "more buffers": lambda state: {**state, "3.total_ops": torch.zeros(1), "anchors": torch.zeros(2, 2)},
    "no counters": lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.ckpt", "w.unknown"])
def test_wrapped_state_dicts(tmp_path: Path, wrap: Callable[[dict[str, Any]], Any], name: str) -> None:
    source, model = make_net(), make_net()
    torch.save(wrap(source.state_dict()), tmp_path / name)
    load_weights(model, tmp_path / name)
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_wrappers_inside_of_names(tmp_path: Path) -> None:
    source, model = Compiled(), nn.Sequential()
    model.stem = nn.Conv2d(3, 8, 3)
    assert "stem._orig_mod.weight" in source.state_dict()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model.stem.weight, source.stem.weight)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_safetensors_are_known_by_their_content(tmp_path: Path, name: str) -> None:
    source, model = make_net(), make_net()
    save_file(source.state_dict(), tmp_path / name)
    load_weights(model, tmp_path / name)
    assert torch.equal(model[3].weight, source[3].weight)


def test_scripted_models_give_their_weights(tmp_path: Path) -> None:
    source, model = make_net(), make_net()
    torch.jit.script(source).save(str(tmp_path / "scripted.pt"))
    load_weights(model, tmp_path / "scripted.pt")
    assert torch.equal(model[3].weight, source[3].weight)


@pytest.mark.parametrize(("content", "complaint"), [
    (make_net(), r"holds Python objects, such as a whole model.*state_dict\(\)"),
    ({"student": 3, "teacher": "b"}, "holds no state dict, but a dict of 'student', 'teacher'. Save model.state_dict"),
    ([1, 2], "holds no state dict, but a list"),
    ({}, "holds no state dict"),
    ({"0.weight": torch.zeros(8, 3, 3, 3)},
     "holds another model's weights: 8 of its weights are not in the file, such as '0.bias'"),
    (make_net().state_dict() | {"9.weight": torch.zeros(1)}, "1 in the file are none of its, such as '9.weight'"),
    (make_net().state_dict() | {"0.weight": torch.zeros(8, 1, 3, 3)},
     r"'0.weight' differs: \[8, 1, 3, 3\] in the file, \[8, 3, 3, 3\] in the model"),
], ids=["whole", "unknown keys", "list", "empty", "missing", "unknown", "shape"])
def test_files_that_are_no_weights_of_the_model(tmp_path: Path, content: Any, complaint: str) -> None:
    model = make_net()
    before = model[0].weight.clone()
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(OneXNError, match=complaint):
        load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model[0].weight, before)
