"""Networks of transposed and one-dimensional layers, from pruning to the compiled network."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from onexn_plugins import export_onnx, fold, load_checkpoint, measure, nni, save_checkpoint
from onexn_plugins.errors import OneXNError
from onexn_plugins.export import read_pattern
from onexn_plugins.layers import prunable_layers
from onexn_plugins.masking import masks
from onexn_plugins.pattern import BlockPattern, is_block_sparse, nonzero_blocks, turned
from onexn_plugins.repair import repair
from onexn_plugins.torch_pruning import BlockOBSImportance, OneXNPruner
from onexn_plugins.training import GradualBlocks
from onexn_plugins.tvm_backend import compile_model


class UNet(nn.Module):
    """Two scales, a transposed layer up, another in groups, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.up = nn.ConvTranspose2d(12, 10, 2, 2)
        self.join = nn.Conv2d(18, 8, 3, padding=1)
        self.enlarge = nn.ConvTranspose2d(8, 12, 4, 2, 1, groups=2)
        self.out = nn.Conv2d(12, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images)
        joined = self.join(torch.cat([fine, self.up(self.coarse(fine)).relu()], 1)).relu()
        return self.out(self.enlarge(joined).relu())


class Temporal(nn.Module):
    """A temporal convolutional network: causal, dilated, with a residual; and back to the input's length."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv1d(2, 12, 3), nn.Conv1d(12, 12, 3, dilation=2)
        self.down, self.back = nn.Conv1d(12, 10, 2, 2), nn.ConvTranspose1d(10, 6, 2, 2)
        self.head = nn.Linear(6, 4)

    def forward(self, sound: Tensor) -> Tensor:
        features = self.stem(nn.functional.pad(sound, (2, 0))).relu()
        features = features + self.wide(nn.functional.pad(features, (4, 0))).relu()
        return self.head(self.back(self.down(features).relu()).relu().mean(2))


NETWORKS = {
    "unet": (UNet, (2, 3, 8, 8), {"coarse.0", "up", "join", "enlarge", "out"}, {"up", "enlarge"}),
    "temporal": (Temporal, (2, 2, 12), {"wide", "down", "back"}, {"back"}),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def make(name: str) -> tuple[nn.Module, Tensor]:
    kind, shape, _, _ = NETWORKS[name]
    torch.manual_seed(0)
    images, model = torch.randn(shape), kind()
    with torch.no_grad():
        model(images)  # norms hold statistics of data
    return model.eval(), images


@every_network
def test_a_network_is_rearranged_pruned_saved_exported_and_compiled(name, tmp_path):
    model, images = make(name)
    _, _, chosen, transposed = NETWORKS[name]
    before = model(images)
    pruner = OneXNPruner(model, images, pruning_ratio=0.5, rearrange="sort")
    assert set(pruner.layers) == chosen
    assert transposed <= set(pruner.rearrangement.permutations)
    assert pruner.rearrangement.max_error < 1e-9
    torch.testing.assert_close(model(images), before)
    pruner.step()
    expected = model(images)
    save_checkpoint(model, tmp_path / "net.safetensors")
    again, _ = make(name)
    load_checkpoint(again, tmp_path / "net.safetensors")
    assert torch.equal(again(images), expected)
    assert torch.equal(fold(model)(images), expected)
    report = {layer.name: layer for layer in measure(model).layers}
    path = export_onnx(model, images, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(path)
    feed = {session.get_inputs()[0].name: images.numpy()}
    np.testing.assert_allclose(session.run(None, feed)[0], expected.detach().numpy(), atol=1e-5)
    loaded = onnx.load(path)
    recorded = {entry["layer"]: (key, entry) for key, entry in read_pattern(loaded).items()}
    assert set(recorded) == chosen
    stored = {each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in loaded.graph.initializer}
    readers = {node.input[1]: node.op_type for node in loaded.graph.node if len(node.input) > 1}
    for layer, (key, entry) in recorded.items():
        groups = getattr(model.get_submodule(layer), "groups", 1)
        assert entry == {"layer": layer, "block_size": min(4, report[layer].shape[0]), "groups": groups,
                         "blocks": report[layer].blocks, "kept": report[layer].kept}
        assert (readers[key] == "ConvTranspose") == (layer in transposed)
        weight = turned(stored[key], groups) if layer in transposed else stored[key]
        pattern = BlockPattern.of(weight, entry["block_size"], groups)
        assert is_block_sparse(weight, pattern)
        assert int(nonzero_blocks(weight, pattern).sum()) == entry["kept"]
    compiled = compile_model(path, verify=False)
    np.testing.assert_allclose(compiled.run(images.numpy()), expected.detach().numpy(), atol=1e-4)


@every_network
def test_repair_brings_it_nearer_to_the_dense_network(name):
    model, images = make(name)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(24, *images.shape[1:], generator=generator).cumsum(-1)
    dense, removed = copy.deepcopy(model), copy.deepcopy(model)
    result = repair(model, images, pruning_ratio=dict.fromkeys(NETWORKS[name][2], 0.5), rearrange=True)
    OneXNPruner(removed, images, pruning_ratio=0.5).step()
    with torch.no_grad():
        error, unrepaired = (float((each(images) - dense(images)).square().mean()) for each in (model, removed))
    assert error < 0.7 * unrepaired
    assert set(masks(model)) == NETWORKS[name][2]
    assert all(float(mask.keep.double().mean()) == pytest.approx(0.5, abs=0.1) for mask in masks(model).values())
    assert not result.notes or "is not rearranged" in result.notes[0]


def test_both_toolkits_eliminate_the_same_blocks_of_it():
    (one, images), (two, _) = make("unet"), make("unet")
    OneXNPruner(one, images, BlockOBSImportance(images)).step()
    config = [{"op_names": list(prunable_layers(two)), "sparse_ratio": 0.5}]
    _, found = nni.OneXNPruner(two, config, score="obs", images=images).compress()
    for name, mask in masks(one).items():
        assert torch.equal(mask.mask.expand_as(found[name]["weight"]), found[name]["weight"].bool())


def test_gradual_training_keeps_and_revives_blocks_of_it():
    model, images = make("unet")
    method = GradualBlocks(pruning_ratio=0.5, straight_through=True, decay=1e-2, until=1.0)
    method.prepare(model, images)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for step in range(3):
        method.before_step(step, 3)
        optimizer.zero_grad()
        model(images).square().mean().backward()
        method.before_update()
        optimizer.step()
    kept = {name: mask.keep.clone() for name, mask in masks(model).items()}
    report = {layer.name: layer for layer in measure(fold(model)).layers}
    assert {name: int(keep.sum()) for name, keep in kept.items()} == {name: report[name].kept for name in kept}


def test_a_masked_model_of_it_is_pickled(tmp_path):
    model, images = make("unet")
    OneXNPruner(model, images).step()
    torch.save(model, tmp_path / "net.pt")
    again = torch.load(tmp_path / "net.pt", weights_only=False)
    assert torch.equal(again(images), model(images))
    assert torch.equal(fold(again).enlarge.weight, model.enlarge.weight)


@pytest.mark.parametrize(("layer", "reason"), [
    (nn.Conv3d(4, 8, 1), "Conv3d"), (nn.ConvTranspose3d(4, 8, 1), "ConvTranspose3d"), (nn.Embedding(4, 8), "Embedding"),
    (nn.ConvTranspose2d(4, 1, 2), "one output channel"), (nn.ConvTranspose1d(4, 4, 2, groups=4), "depthwise"),
    (nn.LazyConvTranspose2d(8, 2), "no values yet")])
def test_what_still_cannot_be_pruned_is_named(layer, reason):
    model = nn.ModuleDict({"good": nn.Conv2d(8, 8, 1), "bad": layer})
    with pytest.raises(OneXNError, match=f"bad: .*{reason}"):
        nni.OneXNPruner(model, [{"op_names": ["bad"], "sparse_ratio": 0.5}])
