"""The head follows the weights, or the number of classes that is asked for."""

import pytest
import torch

from onexn_plugins.errors import OneXNError
from onexn_plugins.zoo import load_all_but_head, load_model


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "three.pt"
    model = load_model("mobilenet_v3_small", classes=3)
    torch.nn.init.constant_(model.features[0][0].weight, 0.25)
    torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, path)
    return path


def test_the_head_follows_the_weights(three_classes):
    model = load_model("mobilenet_v3_small", three_classes)
    assert model.classifier[-1].out_features == 3
    assert float(model.features[0][0].weight.detach().mean()) == 0.25, "wrapped as DataParallel and trainers do"


def test_another_number_of_classes_is_refused_unless_the_head_is_new(three_classes):
    with pytest.raises(OneXNError, match=r"'classifier.3.weight' differs: \[3, 1024\] in the file, \[5, 1024\]"):
        load_model("mobilenet_v3_small", three_classes, classes=5)
    model = load_model("mobilenet_v3_small", classes=5)
    head = model.classifier[-1].weight.detach().clone()
    load_all_but_head(model, three_classes)
    assert torch.equal(model.classifier[-1].weight, head)
    assert float(model.features[0][0].weight.detach().mean()) == 0.25


def test_weights_that_differ_elsewhere_are_refused(three_classes):
    for name in ("mobilenet_v3_large", "resnet18"):
        with pytest.raises(OneXNError, match="another model's weights"):
            load_model(name, three_classes)
        with pytest.raises(OneXNError, match="another model's weights"):
            load_all_but_head(load_model(name), three_classes)


def test_what_is_no_state_dict_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(OneXNError, match="holds no state dict"):
        load_model("mobilenet_v3_small", tmp_path / "list.pt")


def test_mobilenet_v1_by_the_papers_name():
    model = load_model("mobilenet_v1", classes=7)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert sum(parameter.numel() for parameter in load_model("mobilenet_v1").parameters()) == 4_231_976
