"""Every bad call is a OneXNError that says what and how to mend, and leaves the model as it was."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.compression.base.wrapper import ModuleWrapper
from nni.compression.pruning import L1NormPruner
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from onexn_plugins.errors import OneXNError
from onexn_plugins.nni import OneXNPruner
from tests.nni.networks import SmallNet, assert_unchanged, snapshot

GOOD = {"op_names": ["grouped", "pointwise"], "sparse_ratio": 0.5}

not_a_ratio = (st.floats(max_value=0.0, exclude_max=True) | st.floats(min_value=1.0, exclude_min=True)
               | st.just(float("nan")) | st.sampled_from(["0.5", True, [0.5], {}]))
not_a_block_size = (st.integers(max_value=0) | st.integers(33, 10**6) | st.floats()
                    | st.sampled_from(["4", True, [4]]))
unknown_name = st.text(min_size=1).filter(lambda name: name not in dict(SmallNet().named_modules()))

bad_entries = st.one_of(
    not_a_ratio.map(lambda value: GOOD | {"sparse_ratio": value}),
    not_a_ratio.map(lambda value: GOOD | {"max_sparse_ratio": value}),
    not_a_ratio.map(lambda value: GOOD | {"min_sparse_ratio": value}),
    not_a_block_size.map(lambda value: GOOD | {"block_size": value}),
    unknown_name.map(lambda name: GOOD | {"op_names": ["pointwise", name]}),
    unknown_name.map(lambda name: {"op_types": [name], "sparse_ratio": 0.5}),
    st.text(min_size=1).filter(lambda key: not key.startswith(("op_", "exclude_"))).map(lambda key: GOOD | {key: 1}),
    st.none() | st.integers() | st.text() | st.lists(st.integers()),
    st.sampled_from([
        {}, {"sparse_ratio": 0.5}, {"op_names": [], "sparse_ratio": 0.5}, {"op_names": ["pointwise"]},
        GOOD | {"sparse_threshold": 0.1}, {"op_names": ["pointwise"], "sparse_threshold": -1.0},
        {"op_names": ["pointwise"], "sparse_threshold": float("nan")},
        {"op_names": ["pointwise"], "sparse_threshold": 0.5, "global_group_id": 1},
        GOOD | {"min_sparse_ratio": 0.8, "max_sparse_ratio": 0.2}, GOOD | {"global_group_id": 1.5},
        GOOD | {"op_names": "pointwise"}, GOOD | {"op_names": [3]}, GOOD | {"op_names": {"pointwise": 1}},
        GOOD | {"op_names_re": ["("]}, GOOD | {"exclude_op_names_re": ["["]},
        GOOD | {"op_names": ["norm"]}, GOOD | {"op_names": [""]}, GOOD | {"op_names": ["depthwise"]},
        GOOD | {"op_types": ["Linear"]}, {"op_names_re": [".*"], "sparse_ratio": 0.5},
        {"op_types": ["BatchNorm2d"], "sparse_ratio": 0.5}, GOOD | {"exclude_op_types": ["Conv2d"]},
        GOOD | {"target_names": ["weight", "_input_"]}, GOOD | {"target_names": ["_input_"]},
        GOOD | {"target_names": ["bias"]}, GOOD | {"target_names": "weight"},
        GOOD | {"target_settings": {"bias": {"sparse_ratio": 0.5}}},
        GOOD | {"target_settings": {"weight": {"sparse_ratio": 2.0}}},
        GOOD | {"target_settings": 3}, GOOD | {"target_settings": {"weight": 3}},
        GOOD | {"granularity": [4, 2]}, GOOD | {"granularity": "out_channel"}, GOOD | {"apply_method": "add"},
        GOOD | {"granularity": [64, 1, -1, -1]}, GOOD | {"granularity": [4, 1, -1, -1], "block_size": 8},
        {"op_names": ["pointwise"], "sparsity": 1.5},
    ]),
)
bad_arguments = st.one_of(
    bad_entries.map(lambda entry: {"config_list": [entry]}),
    bad_entries.map(lambda entry: {"config_list": [{"op_names": ["classifier"], "sparse_ratio": 0.5}, entry]}),
    st.sampled_from([None, [], (), {}, "all", 3, GOOD, [{"op_types": ["Conv2d"], "exclude": True}]]).map(
        lambda value: {"config_list": value}),
    not_a_block_size.map(lambda value: {"block_size": value}),
    (st.text() | st.none() | st.integers()).filter(lambda value: value not in ("l1", "random")).map(
        lambda value: {"score": value}),
    (st.text() | st.none() | st.floats() | st.booleans()).map(lambda value: {"seed": value}),
    st.sampled_from([3, "evaluator", SmallNet]).map(lambda value: {"evaluator": value}),
    st.sampled_from([{"pointwise": 3}, {"pointwise": nn.Identity()}, 5, "wrappers"]).map(
        lambda value: {"existed_wrappers": value}),
    st.sampled_from([None, 3, "images", (), {}, torch.randn(1, 5, 8, 8), torch.randn(3)]).map(
        lambda value: {"rearrange": True, "example_inputs": value}),
    st.just({"rearrange": True, "example_inputs": torch.randn(1, 3, 8, 8),
             "config_list": [GOOD, {"op_names": ["classifier"], "sparse_ratio": 0.5, "block_size": 2}]}),
    (st.text(min_size=1) | st.integers(2)).filter(lambda value: value not in ("swap", "sort")).map(
        lambda value: {"rearrange": value, "example_inputs": torch.randn(1, 3, 8, 8)}),
    st.just({"config_list": [GOOD, {"op_names": ["pointwise"], "sparse_ratio": 0.7}]}),
    st.just({"config_list": [{"op_names": ["pointwise"], "sparse_threshold": 0.5}], "score": "random"}),
    st.sampled_from([{"sparse_ratio": 0.6}, {"block_size": 2}]).map(lambda other: {"config_list": [
        GOOD | {"global_group_id": 0}, GOOD | {"op_names": ["classifier"], "global_group_id": 0} | other]}),
)


def assert_refused(model, arguments):
    before, hooks = snapshot(model), [dict(vars(module)) for module in model.modules()]
    with pytest.raises(OneXNError) as caught:
        OneXNPruner(model, **({"config_list": [GOOD]} | arguments))
    assert caught.value.layer
    assert caught.value.reason
    assert caught.value.fix
    assert_unchanged(model, before)
    assert [list(attributes) for attributes in hooks] == [list(vars(module)) for module in model.modules()]


@settings(deadline=None, max_examples=300)
@given(bad_arguments)
def test_bad_calls(arguments):
    assert_refused(SmallNet(), arguments)


def broken(change) -> SmallNet:
    model = SmallNet()
    change(model)
    return model


def spoil(value):
    def change(model):
        model.pointwise.weight.data[3, 2] = value
    return change


@pytest.mark.parametrize("change", [
    spoil(float("nan")), spoil(float("inf")),
    lambda model: parametrizations.weight_norm(model.pointwise),
    lambda model: parametrize.register_parametrization(model.pointwise, "weight", nn.Identity()),
    lambda model: nn.utils.spectral_norm(model.pointwise),
    lambda model: setattr(model, "twin", nn.Conv2d(12, 25, 1)) or setattr(model.twin, "weight", model.pointwise.weight),
    lambda model: setattr(model, "pointwise", nn.Conv3d(12, 12, 1)),
    lambda model: setattr(model, "pointwise", nn.LazyConv2d(12, 1)),
], ids=["nan", "inf", "weight_norm", "parametrized", "spectral_norm", "tied", "of three dimensions", "lazy"])
def test_layers_that_cannot_be_pruned(change):
    model = broken(change)
    if isinstance(model.pointwise, nn.LazyConv2d):
        with pytest.raises(OneXNError, match="no values"):
            OneXNPruner(model, [GOOD])
    else:
        assert_refused(model, {})


def test_a_model_without_values():
    with pytest.raises(OneXNError, match="no values"):
        OneXNPruner(SmallNet().to("meta"), [GOOD])


def test_no_model():
    with pytest.raises(OneXNError, match=r"torch\.nn\.Module"):
        OneXNPruner("resnet18", [GOOD])


def test_a_mask_of_another_block_size():
    model = SmallNet()
    first = OneXNPruner(model, [GOOD])
    first.compress()
    first.unwrap_model()
    assert_refused(model, {"block_size": 2})


@pytest.mark.parametrize("first", [L1NormPruner, OneXNPruner])
def test_a_model_that_is_wrapped_already_stays_as_it_is(first):
    model = SmallNet()
    pruner = first(model, [GOOD])
    keys = list(model.state_dict())
    with pytest.raises(OneXNError, match="already wrapped"):
        OneXNPruner(model, [{"op_names": ["classifier"], "sparse_ratio": 0.5}])
    assert list(model.state_dict()) == keys
    assert model.pointwise._nni_wrapper is pruner._module_wrappers["pointwise"]
    assert not hasattr(model.classifier, "_nni_wrapper")


@pytest.mark.parametrize("rearrange", [False, True])
def test_a_failure_inside_nni_puts_the_model_back(monkeypatch, rearrange):
    model = SmallNet()
    before = snapshot(model)
    wrap = ModuleWrapper.wrap

    def fail_on_the_second_layer(wrapper):
        if wrapper.name == "pointwise":
            raise MemoryError
        wrap(wrapper)

    monkeypatch.setattr(ModuleWrapper, "wrap", fail_on_the_second_layer)
    with pytest.raises(MemoryError):
        OneXNPruner(model, [GOOD], rearrange=rearrange, example_inputs=torch.randn(1, 3, 8, 8))
    assert_unchanged(model, before)


def test_weights_that_diverge_in_training_are_named_when_masks_are_made():
    model = SmallNet()
    pruner = OneXNPruner(model, [GOOD])
    pruner._module_wrappers["pointwise"].weight.data[0] = float("nan")
    with pytest.raises(OneXNError, match="pointwise"):
        pruner.compress()


@pytest.mark.parametrize("arguments", [{"max_steps": 3}, {"max_epochs": 1}])
def test_one_shot_pruning_does_not_train(arguments):
    with pytest.raises(OneXNError, match="does not train"):
        OneXNPruner(SmallNet(), [GOOD]).compress(**arguments)
