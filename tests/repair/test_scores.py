"""The score "obs" in both toolkits."""

import pytest
import torch

pytest.importorskip("nni")
pytest.importorskip("torch_pruning")

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import prunable_layers
from onexn_plugins.masking import masks
from onexn_plugins.nni import OneXNPruner as NniPruner
from onexn_plugins.repair import repair
from onexn_plugins.torch_pruning import BlockOBSImportance, BlockScoreImportance
from onexn_plugins.torch_pruning import OneXNPruner as TorchPruner
from tests.repair.networks import photos, residual_net


def config(net):
    return [{"op_names": list(prunable_layers(net)), "sparse_ratio": 0.5}]


def test_both_toolkits_and_repair_give_the_same_masks():
    one, two, three = residual_net(), residual_net(), residual_net()
    TorchPruner(one, photos(1), BlockOBSImportance(photos()), pruning_ratio=0.5).step()
    _, found = NniPruner(two, config(two), score="obs", images=photos()).compress()
    repair(three, photos(), pruning_ratio=dict.fromkeys(prunable_layers(three), 0.5), rearrange=False)
    keep = {name: mask.keep for name, mask in masks(one).items()}
    assert keep.keys() == found.keys()
    for name, mask in masks(one).items():
        theirs = found[name]["weight"].bool()
        assert torch.equal(mask.mask.expand_as(theirs), theirs)
    for name, mask in masks(three).items():
        assert (mask.keep == keep[name]).double().mean() > 0.95  # bfloat16 or not


def test_gradual_pruning_looks_again_at_every_step():
    net = residual_net()
    pruner = TorchPruner(net, photos(1), BlockOBSImportance(photos()), pruning_ratio=0.6, iterative_steps=2)
    pruner.step()
    first = {name: mask.keep.clone() for name, mask in masks(net).items()}
    pruner.step()
    for name, mask in masks(net).items():
        assert bool((mask.keep <= first[name]).all())
        assert mask.keep.sum() < first[name].sum()


def test_images_are_needed():
    net = residual_net()
    with pytest.raises(OneXNError, match="needs images"):
        NniPruner(net, config(net), score="obs")
    with pytest.raises(OneXNError, match="needs images"):
        TorchPruner(net, photos(1), BlockScoreImportance("obs")).step()
    with pytest.raises(OneXNError, match="forward fails"):
        TorchPruner(net, photos(1), BlockOBSImportance(torch.randn(4, 7, 8, 8))).step()
    assert not masks(net)
