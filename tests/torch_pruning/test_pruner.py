"""OneXNPruner: what it prunes, how much, and through which of torch-pruning's interfaces."""

from __future__ import annotations

import copy

import pytest
import torch
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import mask_of, masks
from onexn_plugins.pattern import BlockPattern, is_block_sparse, nonzero_blocks
from onexn_plugins.selection import num_pruned
from onexn_plugins.torch_pruning import BlockL1Importance, BlockRandomImportance, OneXNPruner
from tests.torch_pruning.networks import IMAGES, Shuffling, small_net

PRUNED = ["wide", "grouped", "point", "residual"]
WIDTHS = {"wide": (12, 8, 1), "grouped": (18, 4, 3), "point": (22, 18, 1), "residual": (22, 22, 1)}


def patterns(block_size: int) -> dict[str, BlockPattern]:
    return {name: BlockPattern(out, columns, block_size, groups) for name, (out, columns, groups) in WIDTHS.items()}


def kept(model: nn.Module) -> dict[str, int]:
    return {name: int(mask.keep.sum()) for name, mask in masks(model).items()}


@settings(deadline=None, max_examples=40)
@given(block_size=st.integers(1, 12), ratio=st.floats(0, 1), seed=st.integers(0, 3))
def test_the_exact_number_of_blocks_goes_and_the_pattern_is_aligned(block_size, ratio, seed):
    model = small_net(seed)
    OneXNPruner(model, IMAGES, block_size=block_size, pruning_ratio=ratio).step()
    for name, pattern in patterns(block_size).items():
        assert kept(model)[name] == pattern.num_blocks - num_pruned(pattern.num_blocks, ratio)
        weight = model.get_submodule(name).weight
        assert int(nonzero_blocks(weight, pattern).sum()) == kept(model)[name]
        if num_pruned(pattern.num_blocks, ratio):
            assert is_block_sparse(weight, pattern)


@settings(deadline=None, max_examples=25)
@given(block_size=st.integers(1, 8), ratio=st.floats(0, 1), lowest=st.floats(0, 0.5), highest=st.floats(0.5, 1))
def test_global_scope_spends_one_budget_within_each_layers_bounds(block_size, ratio, lowest, highest):
    model = small_net()
    OneXNPruner(model, IMAGES, block_size=block_size, pruning_ratio=ratio, scope="global",
                min_pruning_ratio=lowest, max_pruning_ratio=highest).step()
    blocks = {name: pattern.num_blocks for name, pattern in patterns(block_size).items()}
    pruned = {name: blocks[name] - count for name, count in kept(model).items()}
    least = {name: num_pruned(count, lowest) for name, count in blocks.items()}
    most = {name: num_pruned(count, highest) for name, count in blocks.items()}
    assert all(least[name] <= pruned[name] <= most[name] for name in PRUNED)
    wanted = num_pruned(sum(blocks.values()), ratio)
    assert sum(pruned.values()) == min(max(wanted, sum(least.values())), sum(most.values()))


@settings(deadline=None, max_examples=25)
@given(block_size=st.integers(1, 8), ratio=st.floats(0, 1))
def test_row_scope_keeps_equally_many_blocks_in_every_row(block_size, ratio):
    model = small_net()
    OneXNPruner(model, IMAGES, block_size=block_size, pruning_ratio=ratio, scope="row").step()
    for name, mask in masks(model).items():
        columns = WIDTHS[name][1]
        assert set(mask.keep.sum(1).tolist()) == {columns - num_pruned(columns, ratio)}


def test_stem_depthwise_and_linear_stay_dense_unless_asked_for():
    model = small_net()
    OneXNPruner(model, IMAGES, block_size=2).step()
    assert list(masks(model)) == PRUNED
    model = small_net()
    OneXNPruner(model, IMAGES, block_size=2, full=True).step()
    assert list(masks(model)) == [*PRUNED, "classifier"]
    model = small_net()
    OneXNPruner(model, IMAGES, block_size=2, pruning_ratio_dict={"stem.0": 0.25, model.classifier: 0.5}).step()
    assert list(masks(model)) == ["stem.0", *PRUNED, "classifier"]
    assert kept(model)["stem.0"] == 9
    assert kept(model)["classifier"] == 55


def test_gradual_pruning_follows_the_scheduler_and_never_revives_a_block():
    def cubic(ratio, steps):
        return [ratio * (1 - (1 - step / steps) ** 3) for step in range(steps + 1)]

    model = small_net()
    pruner = OneXNPruner(model, IMAGES, block_size=4, pruning_ratio=0.8, iterative_steps=4,
                         iterative_pruning_ratio_scheduler=cubic)
    before = {name: torch.ones(pattern.shape, dtype=torch.bool) for name, pattern in patterns(4).items()}
    for step in range(1, 5):
        pruner.step()
        for name, mask in masks(model).items():
            assert not bool((mask.keep & ~before[name]).any())
            blocks = mask.keep.numel()
            assert int((~mask.keep).sum()) == num_pruned(blocks, cubic(0.8, 4)[step])
            before[name] = mask.keep.clone()
        with torch.no_grad():  # what training does: pruned weights would rank first now
            for name in PRUNED:
                model.get_submodule(name).parametrizations.weight.original.add_(torch.randn(1))
    with pytest.warns(UserWarning, match="all 4 steps are done"):
        pruner.step()
    assert all(torch.equal(mask.keep, before[name]) for name, mask in masks(model).items())


def test_blocks_that_were_folded_between_steps_stay_pruned():
    model = small_net()
    pruner = OneXNPruner(model, IMAGES, BlockRandomImportance(5), block_size=4, iterative_steps=2)
    pruner.step()
    zeros = {name: mask.keep.clone() for name, mask in masks(model).items()}
    pruner.fold()
    pruner.importance = BlockRandomImportance(6)
    pruner.step()
    for name, mask in masks(model).items():
        assert not bool((mask.keep & ~zeros[name]).any())
        assert int((~mask.keep).sum()) == num_pruned(mask.keep.numel(), 0.5)


def test_interactive_step_yields_groups_that_mask():
    model = small_net()
    pruner = OneXNPruner(model, IMAGES, block_size=4)
    groups = list(pruner.step(interactive=True))
    assert not masks(model)
    assert [group.name for group in groups] == PRUNED
    for group in groups:
        dep, idxs = group[0]
        assert dep.layer is model.get_submodule(group.name)
        assert idxs == group[0].root_idxs == list(range(dep.layer.out_channels))
        assert group.name in str(group)
        assert isinstance(group, tp.dependency.Group)
    groups[0].keep = torch.zeros_like(groups[0].keep)
    groups[0].prune()
    groups[1]()
    assert kept(model) == {"wide": 0, "grouped": 12}
    with pytest.raises(OneXNError, match="not channels"):
        groups[2].prune([0, 1])
    assert [entry["layer"] for entry in pruner.pruning_history()] == ["wide", "grouped"]
    assert pruner.DG.pruning_history() == []


def test_a_layers_own_ratio_and_a_shared_one():
    model = small_net()
    OneXNPruner(model, IMAGES, block_size=2, pruning_ratio=0.5, ignored_layers=[model.wide],
                pruning_ratio_dict={model.point: 0.25, model.wide: 0.9}).step()
    blocks = {name: pattern.num_blocks for name, pattern in patterns(2).items()}
    assert kept(model) == {"grouped": blocks["grouped"] // 2, "residual": blocks["residual"] // 2,
                           "point": blocks["point"] - num_pruned(blocks["point"], 0.25)}
    model = small_net()
    OneXNPruner(model, IMAGES, block_size=2, pruning_ratio=0.5, global_pruning=True,
                pruning_ratio_dict={(model.point, model.residual): 0.75}).step()
    alone = {name: blocks[name] - count for name, count in kept(model).items()}
    assert alone["point"] + alone["residual"] == num_pruned(blocks["point"] + blocks["residual"], 0.75)
    assert alone["wide"] + alone["grouped"] == num_pruned(blocks["wide"] + blocks["grouped"], 0.5)


def test_isomorphic_layers_compete_among_themselves():
    model = small_net()
    OneXNPruner(model, IMAGES, block_size=2, pruning_ratio=0.5, scope="global", isomorphic=True).step()
    blocks = {name: pattern.num_blocks for name, pattern in patterns(2).items()}
    counts = kept(model)
    assert counts["wide"] == blocks["wide"] // 2
    assert counts["grouped"] == blocks["grouped"] // 2
    assert counts["point"] + counts["residual"] == (blocks["point"] + blocks["residual"]) // 2


@pytest.mark.parametrize("ignored", ["name", "module", "type", "parameter", "container"])
def test_layers_are_ignored_by_whatever_names_them(ignored):
    model = small_net()
    entry = {"name": "point", "module": model.point, "type": nn.Conv2d, "parameter": model.point.weight,
             "container": model.stem}[ignored]
    kwargs = {"full": True} if ignored == "type" else {}
    OneXNPruner(model, IMAGES, block_size=2, ignored_layers=[entry], **kwargs).step()
    expected = {"type": ["classifier"], "container": PRUNED}.get(ignored, ["wide", "grouped", "residual"])
    assert list(masks(model)) == expected


def test_root_module_types_choose_among_the_layers():
    model = small_net()
    OneXNPruner(model, IMAGES, block_size=2, full=True, root_module_types=[tp.ops.TORCH_LINEAR]).step()
    assert list(masks(model)) == ["classifier"]


def test_training_keeps_the_zeros_and_fold_gives_the_old_model_back():
    model = small_net()
    keys = list(model.state_dict())
    pruner = OneXNPruner(model, IMAGES, block_size=4)
    pruner.step()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    before = model.wide.weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        model(IMAGES).square().mean().backward()
        optimizer.step()
    assert not torch.equal(before, model.wide.weight)
    output, zeros = model.eval()(IMAGES), {name: ~mask.keep for name, mask in masks(model).items()}
    assert pruner.fold() is model
    assert type(model.wide) is nn.Conv2d
    assert list(model.state_dict()) == keys
    assert torch.equal(model(IMAGES), output)
    for name, pattern in patterns(4).items():
        assert torch.equal(~nonzero_blocks(model.get_submodule(name).weight, pattern), zeros[name])


def test_straight_through_and_regrowth_bring_blocks_back():
    model = small_net()
    pruner = OneXNPruner(model, IMAGES, block_size=4, pruning_ratio=0.5, iterative_steps=4, straight_through=True,
                         iterative_pruning_ratio_scheduler=lambda ratio, steps: [0, ratio] + [ratio] * (steps - 1),
                         regrowth=lambda step, steps: 0.0 if step == 2 else 0.25)
    pruner.step()
    model(IMAGES).square().sum().backward()
    original = model.point.parametrizations.weight.original
    mask = mask_of(model.point)
    pruned = (~mask.keep).nonzero()
    gone = mask.pattern.expand(~mask.keep)
    assert bool((original.grad[gone] != 0).any())
    assert bool((model.point.weight[gone] == 0).all())
    first = mask.keep.clone()
    with torch.no_grad():
        original.view(22, 18)[gone] = 9.0
    pruner.step()
    assert torch.equal(mask.keep, first)
    pruner.step()
    back = mask.keep & ~first
    assert int(back.sum()) == num_pruned(len(pruned), 0.25)
    assert int(mask.keep.sum()) == int(first.sum())


def test_a_model_the_dependency_graph_cannot_trace_is_pruned():
    torch.manual_seed(0)
    model = Shuffling().train()
    pruner = OneXNPruner(model, IMAGES, block_size=2)
    with pytest.raises(OneXNError, match="cannot trace"):
        _ = pruner.DG
    pruner.step()
    assert list(masks(model)) == ["left.0", "left.1", "left.2", "head"]
    assert model.training


def test_tracing_the_graph_leaves_the_model_alone():
    model = small_net().train()
    model.wide.requires_grad_(False)
    model.norm.eval()
    before = copy.deepcopy(model.state_dict())
    graph = OneXNPruner(model, IMAGES).DG
    assert model.wide in graph.module2node
    assert model.training
    assert not model.norm.training
    assert not model.wide.weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_instances_do_not_leak_into_each_other():
    first = OneXNPruner(small_net(), IMAGES)
    second = OneXNPruner(Shuffling(), IMAGES, block_size=2)
    assert set(first.layers.values()).isdisjoint(second.layers.values())
    assert list(second.layers) == ["left.0", "left.1", "left.2", "head"]


def test_deprecated_names_still_work():
    model = small_net()
    with pytest.warns(UserWarning, match="ch_sparsity is deprecated"):
        OneXNPruner(model, IMAGES, block_size=2, ch_sparsity=0.75).step()
    assert kept(model)["wide"] == 12


@pytest.mark.filterwarnings("ignore:Unwrapped parameters")
def test_default_values_of_channel_arguments_are_accepted():
    tp.pruner.BasePruner(small_net(), IMAGES, tp.importance.MagnitudeImportance())  # writes into its own defaults
    arguments = {"round_to": None, "in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {},
                 "prune_num_heads": False, "prune_head_dims": True, "head_pruning_ratio": 0.0,
                 "head_pruning_ratio_dict": None, "customized_pruners": None, "unwrapped_parameters": None,
                 "forward_fn": None, "output_transform": None, "channel_groups": {}, "ch_sparsity": None,
                 "ch_sparsity_dict": None}
    model = small_net()
    OneXNPruner(model, IMAGES, tp.importance.MagnitudeImportance(), **arguments).step()
    assert masks(model)


def test_forward_fn_and_dict_inputs_run_the_model():
    model = small_net()
    OneXNPruner(model, {"data": IMAGES}, forward_fn=lambda net, batch: net(batch["data"])).step()
    assert masks(model)
    model = small_net(dtype=torch.float64)
    OneXNPruner(model, {"images": IMAGES.double()}).step()
    assert model.wide.weight.dtype == torch.float64


def test_report_counts_what_was_pruned():
    pruner = OneXNPruner(small_net(), IMAGES, BlockL1Importance(), block_size=2)
    pruner.step()
    report = pruner.report()
    assert abs(report.sparsity.blocks - 0.5) < 1e-3
    assert report.macs < report.dense_macs
