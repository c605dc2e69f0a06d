import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from onexn_plugins import export_onnx, selection
from onexn_plugins.errors import OneXNError
from onexn_plugins.export import PATTERN_KEY, read_pattern
from onexn_plugins.layers import groups_of, prunable_layers
from onexn_plugins.masking import attach, masks
from onexn_plugins.pattern import BlockPattern

onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 18, 3, padding=1, groups=2)
        self.head = nn.Linear(18, 5)

    def forward(self, image, scale):
        features = self.wide(torch.relu(self.norm(self.stem(image)))) * scale
        return self.head(features.mean((2, 3))), features


def pruned(block_size=4, full=False) -> TwoInputs:
    torch.manual_seed(0)
    model = TwoInputs().train()
    for name, layer in prunable_layers(model, full=full).items():
        pattern = BlockPattern.of(layer.weight, block_size, groups_of(layer))
        attach(layer, selection.keep_highest(torch.rand(pattern.shape), 0.5), block_size, name)
    return model


def inputs():
    return {"image": torch.randn(2, 3, 6, 6), "scale": torch.rand(1)}


def run(path, feed):
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {name: value.numpy() for name, value in feed.items()})


def test_the_file_computes_what_the_model_does_and_records_the_pattern(tmp_path):
    model, feed = pruned(full=True), inputs()
    path = export_onnx(model, feed, tmp_path / "net.onnx")
    assert path == str(tmp_path / "net.onnx")
    assert model.training
    assert set(masks(model)) == {"wide", "head"}, "the model keeps its masks"
    model.eval()
    for output, expected in zip(run(path, feed), model(**feed), strict=True):
        np.testing.assert_allclose(output, expected.detach().numpy(), atol=1e-5)
    loaded = onnx.load(path)
    recorded = {entry["layer"]: entry for entry in read_pattern(loaded).values()}
    assert recorded["wide"] == {"layer": "wide", "block_size": 4, "groups": 2, "blocks": 24, "kept": 12}
    assert recorded["head"]["block_size"] == 4
    names = {initializer.name for initializer in loaded.graph.initializer}
    assert set(read_pattern(loaded)) <= names
    assert not any(node.metadata_props for node in loaded.graph.node), "no stack traces of this machine"


def test_a_layer_is_recorded_with_the_block_size_of_its_own_mask(tmp_path):
    loaded = onnx.load(export_onnx(pruned(2), inputs(), tmp_path / "net.onnx", block_size=8))
    assert [entry["block_size"] for entry in read_pattern(loaded).values()] == [2]


class Auxiliary(nn.Module):
    """As Inception v3: a second classifier for training alone."""

    def __init__(self):
        super().__init__()
        self.body, self.auxiliary, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 1), nn.Conv2d(8, 16, 1)

    def forward(self, image):
        features = self.body(image)
        return (self.head(features), self.auxiliary(features)) if self.training else self.head(features)


def test_layers_that_do_not_run_are_left_out(tmp_path):
    model = Auxiliary()
    for name, layer in prunable_layers(model).items():
        pattern = BlockPattern.of(layer.weight, 4)
        attach(layer, selection.keep_highest(torch.rand(pattern.shape), 0.5), 4, name)
    loaded = onnx.load(export_onnx(model, torch.randn(1, 3, 6, 6), tmp_path / "net.onnx"))
    assert {entry["layer"] for entry in read_pattern(loaded).values()} == {"head"}
    assert "auxiliary" in masks(model)


def test_a_batch_norm_may_have_scales_of_zero(tmp_path):
    """As after network slimming, or where the last norm of a residual branch starts at zero; one channel or all."""
    for scales in (slice(2, 3), slice(None)):
        model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, bias=False), nn.BatchNorm2d(12)).eval()
        pattern = BlockPattern.of(model[1].weight, 4)
        attach(model[1], selection.keep_highest(torch.rand(pattern.shape), 0.5), 4, "1")
        with torch.no_grad():
            model[2].weight[scales] = 0
        loaded = onnx.load(export_onnx(model, torch.randn(1, 3, 6, 6), tmp_path / "net.onnx"))
        assert [entry["layer"] for entry in read_pattern(loaded).values()] == ["1"]


class Standardised(nn.Conv2d):
    """As in BiT and NFNet: the weight that is used has mean 0 and deviation 1 for every output channel."""

    def forward(self, image):
        deviation, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
        return self._conv_forward(image, (self.weight - mean) / torch.sqrt(deviation + 1e-5), self.bias)


def test_pruned_zeros_that_are_no_zeros_are_refused(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Standardised(8, 8, 3)).eval()
    image = torch.randn(1, 3, 8, 8)
    export_onnx(model, image, tmp_path / "dense.onnx")
    pattern = BlockPattern.of(model[1].weight, 4)
    attach(model[1], selection.keep_highest(torch.rand(pattern.shape), 0.5), 4, "1")
    with pytest.raises(OneXNError, match="1: its zero blocks are not in the exported model, as where forward"):
        export_onnx(model, image, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_a_dense_model_records_an_empty_pattern(tmp_path):
    loaded = onnx.load(export_onnx(TwoInputs(), inputs(), tmp_path / "net.onnx"))
    assert json.loads(next(entry.value for entry in loaded.metadata_props if entry.key == PATTERN_KEY)) == {}


def test_double_models_stay_double(tmp_path):
    path = export_onnx(pruned().double(), {k: v.double() for k, v in inputs().items()}, tmp_path / "net.onnx")
    assert onnx.load(path).graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.DOUBLE


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, image):
        return self.conv(image) if image.sum() > 0 else image


def broken_weight():
    model = pruned()
    with torch.no_grad():
        model.stem.weight[0, 0, 0, 0] = math.nan
    return model


@pytest.mark.parametrize(("model", "feed", "folder", "message"), [
    (pruned, lambda: torch.randn(1, 3, 6, 6), ".", "forward fails"),
    (pruned, lambda: "image", ".", "must be a tensor, a tuple or a dict"),
    (pruned, inputs, "missing", "its folder does not exist"),
    (Branching, lambda: torch.randn(1, 3, 6, 6), ".", "cannot export"),
    (broken_weight, inputs, ".", "stem: its weight holds NaN"),
])
def test_bad_input_leaves_no_file(tmp_path, model, feed, folder, message):
    with pytest.raises(OneXNError, match=message):
        export_onnx(model(), feed(), tmp_path / folder / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_keeps_the_file_that_was_there(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_text("precious")
    with pytest.raises(OneXNError):
        export_onnx(Branching(), torch.randn(1, 3, 6, 6), path)
    assert path.read_text() == "precious"


class Unread(nn.Module):
    """Two convolutions over the first one's result; the output is that of one alone."""

    def __init__(self):
        super().__init__()
        self.stem, self.read, self.unread = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(8, 16, 3)

    def forward(self, x):
        found = [layer(self.stem(x)) for layer in (self.read, self.unread)]
        return found[0]


def test_layers_whose_results_nothing_reads_are_left_out(tmp_path):
    """As those of HRNet's other resolutions where one is asked for: the exporter drops them."""
    model = Unread()
    for name in ("read", "unread"):
        layer = getattr(model, name)
        attach(layer, selection.keep_highest(torch.rand(BlockPattern.of(layer.weight, 4).shape), 0.5), 4, name)
    path = export_onnx(model, torch.randn(1, 3, 9, 9), tmp_path / "net.onnx")
    assert {entry["layer"] for entry in read_pattern(onnx.load(path)).values()} == {"read"}
