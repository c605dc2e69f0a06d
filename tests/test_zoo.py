import pytest
import torch
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.zoo import load_model, load_weights


def make_small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))


def make_nothing() -> None:
    return None


def test_names_of_torchvision_timm_and_callables():
    assert type(load_model("resnet18")).__name__ == "ResNet"
    assert "efficientnet" in type(load_model("timm/efficientnet_lite0")).__module__
    model = load_model("tests.test_zoo:make_small")
    assert not model.training
    other = load_model("tests.test_zoo:make_small")
    assert torch.equal(model[0].weight, other[0].weight), "random weights are seeded"


@pytest.mark.parametrize(("name", "message"), [
    ("resnet1888", "neither torchvision nor timm has a model of this name. Did you mean resnet18"),
    ("mobilnet_v2", "Did you mean mobilenet_v2 or "),
    ("timm/eficientnet_b0", "Did you mean efficientnet_b0"),
    ("entirely_else", "Give module:callable for your own model"),
    ("tests.test_zoo:missing", "cannot be made"),
    ("no_such_module:make", "cannot be made"),
    ("tests.test_zoo:make_nothing", "returned a NoneType"),
])
def test_unknown_models(name, message):
    with pytest.raises(OneXNError, match=message):
        load_model(name)


def test_weights_are_loaded_strictly_or_not_at_all(tmp_path):
    source, model = make_small(), make_small()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model[0].weight, source[0].weight)
    torch.save({"0.weight": torch.zeros(1)}, tmp_path / "other.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:100])
    for name, message in (("other.pt", "another model's"), ("cut.pt", "cannot be read"), ("none.pt", "no such file")):
        with pytest.raises(OneXNError, match=message):
            load_weights(model, tmp_path / name)
        assert torch.equal(model[0].weight, source[0].weight)
