"""Channels first, 1×N blocks last: the right order works to the exported file, the wrong one changes nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch_pruning as tp
from torch import nn

from onexn_plugins import export_onnx, fold, save_checkpoint
from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import masks
from onexn_plugins.measurement import measure
from onexn_plugins.pattern import BlockPattern, is_block_sparse
from onexn_plugins.torch_pruning import OneXNPruner
from tests.torch_pruning.networks import IMAGES, assert_unchanged, small_net, snapshot

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.filterwarnings("ignore")  # torch-pruning warns of parameters it does not know


def channel_pruner(model: nn.Module, kind: type = tp.pruner.MagnitudePruner, **options: int) -> tp.pruner.BasePruner:
    return kind(model, IMAGES, tp.importance.MagnitudeImportance(), pruning_ratio=0.4,
                ignored_layers=[model.grouped, model.classifier], **options)


@pytest.mark.parametrize("block_size", [2, 4])
@pytest.mark.parametrize("rearrange", [False, "sort"])
def test_channels_then_blocks_to_the_exported_file(tmp_path, block_size, rearrange):
    model = small_net()
    channel_pruner(model, round_to=block_size).step()
    assert model.point.out_channels < 22
    narrowed = [layer for name, layer in model.named_modules() if name in ("wide", "point", "residual")]
    assert all(layer.out_channels % block_size == 0 for layer in narrowed)
    OneXNPruner(model, IMAGES, block_size=block_size, rearrange=rearrange).step()
    assert set(masks(model)) == {"wide", "grouped", "point", "residual"}
    fold(model)
    for layer in narrowed:
        pattern = BlockPattern.of(layer.weight, block_size)
        assert set(pattern.row_heights().tolist()) == {block_size}
        assert is_block_sparse(layer.weight, pattern)
    assert abs(measure(model, block_size).sparsity.blocks - 0.5) < 0.02
    path = export_onnx(model.eval(), IMAGES, tmp_path / "pruned.onnx", block_size=block_size)
    onnx.checker.check_model(onnx.load(path))


@pytest.mark.parametrize("kind", [tp.pruner.MagnitudePruner, tp.pruner.GroupNormPruner, tp.pruner.BNScalePruner])
@pytest.mark.parametrize("built", ["before", "after"])
def test_blocks_then_channels_is_refused_before_anything_changes(kind, built):
    """Only the last layer is masked, so that a pruner would have cut all others when it finds out."""
    model = small_net()
    late = channel_pruner(model, kind) if built == "before" else None
    OneXNPruner(model, IMAGES, block_size=2, pruning_ratio_dict={"residual": 0.5}, ignored_layers=[
        "wide", "grouped", "point"]).step()
    assert set(masks(model)) == {"residual"}
    before = snapshot(model)
    late = late or channel_pruner(model, kind)
    before["modules"] = snapshot(model)["modules"]  # building the graph has set eval mode
    for attempt in (late.step, lambda: [group.prune() for group in late.step(interactive=True)]):
        with pytest.raises(OneXNError, match=r"residual: .*nothing was removed\. Prune channels first"):
            attempt()
        late.current_step = 0
    assert_unchanged(model, before)
    assert model.point.out_channels == 22
    fold(model)
    late.step()
    assert model.point.out_channels < 22


ALONE = """
import sys, warnings
warnings.simplefilter("ignore")
{before}
import torch
from onexn_plugins import load_checkpoint
from onexn_plugins.errors import OneXNError
from tests.torch_pruning.networks import IMAGES, assert_unchanged, small_net, snapshot
assert ("torch_pruning" in sys.modules) == bool({before!r})
model = small_net()
load_checkpoint(model, {path!r})
import torch_pruning as tp
pruner = tp.pruner.MagnitudePruner(model, IMAGES, tp.importance.MagnitudeImportance(), pruning_ratio=0.4,
                                   ignored_layers=[model.grouped, model.classifier])
before = snapshot(model)
try:
    pruner.step()
except OneXNError as error:
    assert_unchanged(model, before)
    assert model.stem[0].out_channels == 8
    print(error)
"""


@pytest.mark.parametrize("before", ["import torch_pruning", ""], ids=["toolkit first", "checkpoint first"])
def test_a_loaded_mask_is_enough_for_the_refusal(tmp_path, before):
    """In a process that never imports our adapter: the only mask is on the last layer that a pruner comes to."""
    model = small_net()
    OneXNPruner(model, IMAGES, block_size=2, ignored_layers=["wide", "grouped", "point"]).step()
    path = save_checkpoint(model, tmp_path / "masked.safetensors")
    done = subprocess.run([sys.executable, "-c", ALONE.format(before=before, path=path)], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nothing was removed" in done.stdout


def test_a_single_masked_layer_refuses_to_be_cut():
    model = small_net()
    OneXNPruner(model, IMAGES, block_size=2).step()
    before = snapshot(model)
    for cut in (tp.prune_conv_out_channels, tp.prune_conv_in_channels):
        with pytest.raises(OneXNError, match="keeps its shape"):
            cut(model.point, [0, 1])
    assert_unchanged(model, before)
    assert (model.point.out_channels, model.point.in_channels) == (22, 18)
    group = tp.DependencyGraph().build_dependency(model, IMAGES).get_pruning_group(
        model.wide, tp.prune_conv_out_channels, [0])
    with pytest.raises(OneXNError, match="nothing was removed"):
        group.prune()
    assert model.wide.out_channels == 12


def test_models_without_masks_are_cut_as_ever():
    guarded, plain = small_net(), small_net()
    OneXNPruner(guarded, IMAGES)  # constructed, but no step
    channel_pruner(guarded).step()
    channel_pruner(plain).step()
    assert all(torch.equal(one, other) for one, other in zip(guarded.parameters(), plain.parameters(), strict=True))
