"""Scripted and quantised models are refused in clear words."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.ao import quantization

pytest.importorskip("nni")
pytest.importorskip("onnx")
pytest.importorskip("torch_pruning")
pytest.importorskip("torchvision")

from onexn_plugins import export_onnx, nni, rearrange, torch_pruning
from onexn_plugins.errors import OneXNError
from onexn_plugins.plain_modules import check_plain
from onexn_plugins.repair import repair
from onexn_plugins.training import Blocks
from onexn_plugins.zoo import load_model


def make_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()


def make_scripted() -> nn.Module:
    return torch.jit.script(make_net())


def make_traced() -> nn.Module:
    return torch.jit.trace(make_net(), torch.randn(1, 3, 8, 8))


def make_prepared() -> nn.Module:
    model = make_net().train()
    model.qconfig = quantization.get_default_qat_qconfig("x86")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantization.prepare_qat(model)


def make_quantised() -> nn.Module:
    model = nn.Sequential(quantization.QuantStub(), make_net(), quantization.DeQuantStub()).eval()
    model.qconfig = quantization.get_default_qconfig("x86")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.prepare(model, inplace=True)(torch.randn(1, 3, 8, 8))
        return quantization.convert(model)


@pytest.mark.parametrize(("make", "complaint"), [
    ("make_scripted", "is a scripted or traced module, whose layers cannot be changed. Give the module that"),
    ("make_traced", "is a scripted or traced module"),
    ("make_prepared", "is prepared for quantisation .*Prune the float model first"),
    ("make_quantised", "is quantised .*Prune the float model first, then quantise it"),
])
def test_what_cannot_be_pruned(make, complaint, tmp_path):
    with pytest.raises(OneXNError, match=complaint):
        load_model(f"tests.test_plain_modules:{make}")
    with pytest.raises(OneXNError, match=complaint):
        export_onnx(globals()[make](), torch.randn(1, 3, 8, 8), tmp_path / "net.onnx")


@pytest.mark.parametrize(("make", "complaint"), [
    (make_scripted, "is a scripted or traced module"), (make_prepared, "is prepared for quantisation"),
    (make_quantised, "is quantised")])
def test_whoever_prunes_refuses_them(make, complaint):
    images, config = torch.randn(1, 3, 8, 8), [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]
    for prune in (lambda model: torch_pruning.OneXNPruner(model, images), lambda model: nni.OneXNPruner(model, config),
                  lambda model: Blocks().prepare(model, images), lambda model: rearrange(model, images),
                  lambda model: repair(model, images)):
        model = make()
        keys = list(model.state_dict())
        with pytest.raises(OneXNError, match=complaint):
            prune(model)
        assert list(model.state_dict()) == keys


def test_ordinary_models_pass():
    check_plain(make_net())
    check_plain(copy.deepcopy(make_net()).half())
