import copy
import io

import nni.compression.pruning
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.compression.pruning import L1NormPruner, LevelPruner, LinearPruner
from nni.compression.quantization import QATQuantizer
from torch import nn

from onexn_plugins import fold, measure
from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import dense_weight, mask_of
from onexn_plugins.masking import masks as masks_of
from onexn_plugins.nni import OneXNPruner, register
from tests.nni.networks import LAYERS, SmallNet, assert_unchanged, images, small_nets, snapshot
from tests.nni.test_schedulers import torch_evaluator, train

HALF = [{"op_names": list(LAYERS), "sparse_ratio": 0.5}]


@settings(deadline=None, max_examples=25)
@given(small_nets(), st.floats(0.1, 1.0), st.booleans())
def test_unwrap_then_fold_keeps_function_zeros_names_and_classes(model, ratio, fold_while_wrapped):
    keys, classes = list(model.state_dict()), [type(module) for module in model.modules()]
    dense = snapshot(model)
    pruner = OneXNPruner(model, [{"op_names": list(LAYERS), "sparse_ratio": ratio}])
    _, masks = pruner.compress()
    output = model(images())
    if not fold_while_wrapped:
        pruner.unwrap_model()
        assert torch.equal(model(images()), output)
        assert set(masks_of(model)) == {name for name in LAYERS if not masks[name]["weight"].all()}
        assert all(torch.equal(dense_weight(model.get_submodule(name)), dense[f"{name}.weight"]) for name in LAYERS)
    assert fold(model) is model
    assert torch.equal(model(images()), output)
    assert list(model.state_dict()) == keys
    assert [type(module) for module in model.modules()] == classes
    expected = {key: value * masks[key.removesuffix(".weight")]["weight"]
                if key.removesuffix(".weight") in LAYERS and key.endswith(".weight") else value
                for key, value in dense.items()}
    assert_unchanged(model, expected)
    pruner.unwrap_model()  # late or twice: nothing comes back
    assert_unchanged(model, expected)


def test_unwrapping_without_pruning_gives_the_model_as_it_was():
    model = SmallNet()
    before = snapshot(model)
    OneXNPruner(model, HALF).unwrap_model()
    assert_unchanged(model, before)
    assert not masks_of(model)


def test_a_wrapped_model_in_training_can_be_copied_and_the_copy_folded():
    model = SmallNet()
    pruner = OneXNPruner(model, HALF)
    pruner.compress()
    train(model, steps=2)
    best = copy.deepcopy(model)
    output = model.eval()(images())
    assert torch.equal(fold(best).eval()(images()), output)
    train(model.train(), steps=1)  # the original is still wrapped and trains on
    assert hasattr(model.pointwise, "_nni_wrapper")
    assert not torch.equal(fold(model).eval()(images()), output)


def test_measure_sees_the_zeros_of_a_wrapped_model():
    model = SmallNet()
    OneXNPruner(model, HALF).compress()
    wrapped = measure(model)
    assert wrapped.sparsity.blocks > 0.45
    assert measure(fold(model)) == wrapped


def test_training_goes_on_after_unwrapping_and_the_zeros_stay():
    model = SmallNet()
    pruner = OneXNPruner(model, HALF)
    _, masks = pruner.compress()
    pruner.unwrap_model()
    before = snapshot(model)
    train(model, steps=3)
    assert any(not torch.equal(before[key], value) for key, value in model.state_dict().items())
    fold(model)
    for name in LAYERS:
        assert not model.get_submodule(name).weight[masks[name]["weight"] == 0].any()


def test_wrapping_again_takes_mask_and_trained_weights_along():
    model = SmallNet()
    pruner = OneXNPruner(model, HALF)
    pruner.compress()
    pruner.unwrap_model()
    train(model, steps=2)
    output = model.eval()(images())
    pruner.wrap_model()
    assert mask_of(model.pointwise) is None
    assert torch.equal(model(images()), output)
    pruner.unwrap_model()
    assert torch.equal(model(images()), output)


def test_a_second_pruner_goes_on_from_the_first_ones_masks():
    model = SmallNet()
    first = OneXNPruner(model, [{"op_names": ["pointwise"], "sparse_ratio": 0.4}], score="random")
    first.compress()
    first.unwrap_model()
    before = mask_of(model.pointwise).keep.clone()
    second = OneXNPruner(model, [{"op_names": ["pointwise"], "sparse_ratio": 0.7}])
    second.compress()
    second.unwrap_model()
    after = mask_of(model.pointwise).keep
    assert bool((before | ~after).all())
    assert int(after.sum()) < int(before.sum())


def test_the_saved_state_of_a_folded_model_loads_into_a_fresh_one_without_nni():
    model = SmallNet().eval()
    OneXNPruner(model, HALF).compress()
    buffer = io.BytesIO()
    torch.save(fold(model).state_dict(), buffer)
    buffer.seek(0)
    fresh = SmallNet(seed=1).eval()
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(fresh(images()), model(images()))


@pytest.mark.parametrize("pruner_class", [L1NormPruner, LevelPruner])
def test_fold_keeps_the_zeros_of_nnis_own_pruners_too(pruner_class):
    model = SmallNet().eval()
    keys = list(model.state_dict())
    pruner_class(model, [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.5}]).compress()
    output = model(images())
    fold(model)
    assert torch.equal(model(images()), output)
    assert list(model.state_dict()) == keys
    assert (model.pointwise.weight == 0).any()


def test_masks_of_whole_blocks_can_be_set_by_hand_and_others_are_refused():
    model = SmallNet()
    pruner = OneXNPruner(model, [{"op_names": ["pointwise"], "sparse_ratio": 0.5}])
    _, masks = pruner.compress()
    stray = masks["pointwise"]["weight"].clone()
    stray[0, 0] = 1 - stray[0, 0]
    for wrong in ({"pointwise": {"weight": stray}}, {"pointwise": {"weight": stray[1:]}},
                  {"pointwize": {"weight": stray}}, {"pointwise": {"bias": stray}}):
        with pytest.raises(OneXNError):
            pruner.update_masks(wrong)
    assert torch.equal(pruner.get_masks()["pointwise"]["weight"], masks["pointwise"]["weight"])
    pruner.update_masks({"pointwise": {"weight": torch.ones_like(stray)}})
    assert torch.equal(model.pointwise.weight, pruner._module_wrappers["pointwise"].weight)


def test_two_pruners_are_fused_over_different_layers():
    model = SmallNet()
    first = OneXNPruner(model, [{"op_names": ["grouped"], "sparse_ratio": 0.5}], torch_evaluator(model))
    second = OneXNPruner.from_compressor(first, [{"op_names": ["pointwise"], "sparse_ratio": 0.25}], block_size=2)
    assert second._module_wrappers["pointwise"].pattern.block_size == 2
    with pytest.raises(OneXNError, match="max_steps"):
        second.compress()
    for pruner in (first, second):
        pruner.interval_steps = 1
    second.compress(max_steps=4, max_epochs=None)
    second.unwrap_model()
    sparsity = {name: 1 - mask.keep.float().mean().item() for name, mask in masks_of(model).items()}
    assert sparsity == {"grouped": pytest.approx(0.5, abs=0.02), "pointwise": pytest.approx(0.25, abs=0.02)}
    with pytest.raises(OneXNError, match="already pruned"):
        OneXNPruner.from_compressor(second, [{"op_names": ["grouped"], "sparse_ratio": 0.75}])


@pytest.mark.parametrize(("interval", "steps"), [(None, 2), (1, 2), (5, 2)])
def test_a_fused_pruner_prunes_whatever_its_interval(interval, steps):
    """NNI leaves interval_steps at -1, which no step reaches; a short training reaches no large one either."""
    model = SmallNet()
    first = OneXNPruner(model, [{"op_names": ["grouped"], "sparse_ratio": 0.5}], torch_evaluator(model))
    first.compress()
    expected = first.get_masks()["grouped"]["weight"].clone()
    second = OneXNPruner.from_compressor(first, [{"op_names": ["pointwise"], "sparse_ratio": 0.25}])
    if interval is not None:
        first.interval_steps = second.interval_steps = interval
    _, masks = second.compress(steps)
    assert torch.equal(first.get_masks()["grouped"]["weight"], expected)
    assert 1 - masks["pointwise"]["weight"].mean().item() == pytest.approx(0.25, abs=0.04)
    second.unwrap_model()
    fold(model)
    assert int((model.pointwise.weight == 0).sum()) == int((masks["pointwise"]["weight"] == 0).sum())


def test_a_quantizers_wrappers_are_adopted_and_both_methods_train():
    model = SmallNet()
    quantizer = QATQuantizer(model, [{"op_names": ["pointwise"], "target_names": ["weight"], "quant_dtype": "int8",
                                      "quant_scheme": "symmetric"}], torch_evaluator(model))
    pruner = OneXNPruner.from_compressor(quantizer, [{"op_names": ["pointwise"], "sparse_ratio": 0.5}])
    pruner.interval_steps = 1
    pruner.compress(max_steps=3, max_epochs=None)
    pruner.unwrap_model()
    assert 1 - masks_of(model)["pointwise"].keep.float().mean().item() == pytest.approx(0.5, abs=0.01)
    fold(model)
    assert type(model.pointwise) is nn.Conv2d


@pytest.mark.parametrize("method", [True, "swap", "sort"])
def test_rearranging_first_keeps_the_function_and_more_of_the_weights(method):
    plain, model = SmallNet(24).eval(), SmallNet(24).eval()
    reference, total = model(images()), sum(float(model.get_submodule(name).weight.detach().abs().sum())
                                            for name in ("grouped", "pointwise"))
    config = [{"op_names": ["grouped", "pointwise"], "sparse_ratio": 0.5}]
    pruner = OneXNPruner(model, config, rearrange=method, example_inputs=images())
    assert torch.allclose(model(images()), reference, atol=1e-5)
    assert pruner.rearrangement.max_error <= 1e-9
    assert {layer.name for layer in pruner.rearrangement.layers} == {"grouped", "pointwise"}
    assert pruner.rearrangement.permutations
    pruner.compress()
    OneXNPruner(plain, config).compress()
    kept = [sum(float(folded.get_submodule(name).weight.detach().abs().sum()) for name in ("grouped", "pointwise"))
            for folded in (fold(plain), fold(model))]
    assert kept[1] > kept[0]
    assert kept[1] / total == pytest.approx(pruner.rearrangement.retained_after, abs=1e-5)


def test_a_rearranged_pruner_is_scheduled():
    model = SmallNet()
    pruner = OneXNPruner(model, HALF, torch_evaluator(model), rearrange=True, example_inputs=images())
    LinearPruner(pruner, interval_steps=1, total_times=2).compress(max_steps=3, max_epochs=None)
    fold(model)
    assert measure(model).sparsity.blocks == pytest.approx(0.5, abs=0.05)


def test_rearranging_is_refused_where_other_wrappers_hold_copies_of_the_weights():
    model = SmallNet()
    first = OneXNPruner(model, [{"op_names": ["grouped"], "sparse_ratio": 0.5}])
    with pytest.raises(OneXNError, match="copies"):
        OneXNPruner.from_compressor(first, [{"op_names": ["pointwise"], "sparse_ratio": 0.5}],
                                    rearrange=True, example_inputs=images())
    assert model.grouped._nni_wrapper is first._module_wrappers["grouped"]


def test_register_makes_the_name_resolve_once_and_refuses_a_foreign_holder(monkeypatch):
    monkeypatch.delattr(nni.compression.pruning, "OneXNPruner", raising=False)
    register()
    register()
    assert nni.compression.pruning.OneXNPruner is OneXNPruner
    monkeypatch.setattr(nni.compression.pruning, "OneXNPruner", LevelPruner)
    with pytest.raises(OneXNError, match="taken"):
        register()
    assert nni.compression.pruning.OneXNPruner is LevelPruner
    register(replace=True)
    assert nni.compression.pruning.OneXNPruner is OneXNPruner
