"""Bad calls, listed and generated: each ends in OneXNError or ValueError and leaves the model as it was."""

from __future__ import annotations

import math

import pytest
import torch
import torch_pruning as tp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

from onexn_plugins.errors import OneXNError
from onexn_plugins.torch_pruning import BlockL1Importance, OneXNPruner
from tests.torch_pruning.networks import IMAGES, assert_unchanged, small_net, snapshot

WRONG_INTEGERS = st.one_of(st.integers(max_value=0), st.integers(min_value=33), st.floats(), st.booleans(),
                           st.none(), st.text(max_size=3))
WRONG_RATIOS = st.one_of(st.floats(max_value=0, exclude_max=True), st.floats(min_value=1, exclude_min=True),
                         st.just(math.nan), st.booleans(), st.none(), st.text(max_size=3))
UNKNOWN_LAYERS = st.one_of(st.sampled_from(["wide.0", "stem.9", "Wide", "layer1"]), st.integers(),
                           st.builds(lambda: nn.Conv2d(3, 8, 1)))
WRONG_INPUTS = st.one_of(
    st.none(), st.integers(), st.just(()), st.just({}), st.just(torch.zeros(2, 4, 12, 12)), st.just(torch.zeros(3)),
    st.just((IMAGES, IMAGES)), st.just({"pixels": IMAGES}), st.just(IMAGES.double()), st.just(IMAGES.long()))
WRONG_SCHEDULERS = st.sampled_from([
    None, 3, "cubic", lambda ratio: [0, ratio], lambda ratio, steps: [ratio], lambda ratio, steps: [0.0, 2.0, 2.0],
    lambda ratio, steps: ["a"] * 9, lambda ratio, steps: [0, 0.9, 0.1, 0.1], lambda ratio, steps: 1 / 0])
WRONG = {
    "block_size": WRONG_INTEGERS,
    "pruning_ratio": WRONG_RATIOS,
    "max_pruning_ratio": WRONG_RATIOS,
    "min_pruning_ratio": WRONG_RATIOS.filter(lambda ratio: ratio not in (False, None, "")),
    "iterative_steps": WRONG_INTEGERS.filter(lambda steps: isinstance(steps, bool) or not isinstance(steps, int)
                                             or steps < 1),
    "iterative_pruning_ratio_scheduler": WRONG_SCHEDULERS,
    "scope": st.one_of(st.text(max_size=5).filter(lambda scope: scope != "row"), st.integers(), st.none()),
    "ignored_layers": st.one_of(st.lists(UNKNOWN_LAYERS, min_size=1, max_size=2), st.just("wide"), st.integers()),
    "pruning_ratio_dict": st.one_of(
        st.dictionaries(UNKNOWN_LAYERS, st.just(0.5), min_size=1, max_size=2),
        st.dictionaries(st.sampled_from(["wide", "point"]), WRONG_RATIOS, min_size=1, max_size=2),
        st.sampled_from([{"depthwise": 0.5}, {"norm": 0.5}, {"stem.2": 0.1}, [0.5], 0.5])),
    "importance": st.sampled_from([
        3, "l1", BlockL1Importance, tp.importance.BNScaleImportance(), tp.importance.FPGMImportance(),
        tp.importance.OBDCImportance()]),
    "root_module_types": st.sampled_from([[nn.LSTM], [], None, nn.Conv2d, ["conv"], [3]]),
    "regrowth": st.floats(0.01, 1),
    "round_to": st.integers().filter(lambda width: width not in (1, 2)) | st.sampled_from([True, 4.0, "4"]),
    "num_heads": st.just({1: 2}),
    "prune_head_dims": st.just(False),
    "head_pruning_ratio": st.floats(0.01, 1),
    "in_channel_groups": st.just({1: 2}),
    "isomorphic": st.just(True),
    "ch_sparsity": WRONG_RATIOS.filter(lambda ratio: ratio is not None),
    "forward_fn": st.sampled_from([3, lambda model: model, lambda model, batch: model(batch, batch)]),
    "pruning_ration": st.just(0.5),
}


@st.composite
def wrong_arguments(draw):
    names = draw(st.lists(st.sampled_from(sorted(WRONG)), min_size=1, max_size=3, unique=True))
    return {name: draw(WRONG[name]) for name in names}


@pytest.mark.filterwarnings("ignore:ch_sparsity")
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(arguments=wrong_arguments())
def test_wrong_arguments(arguments):
    model = small_net().train()
    before = snapshot(model)
    with pytest.raises((OneXNError, ValueError)):
        OneXNPruner(model, IMAGES, **arguments)
    assert_unchanged(model, before)


@settings(deadline=None, max_examples=20)
@given(example_inputs=WRONG_INPUTS)
def test_wrong_inputs(example_inputs):
    model = small_net().train()
    before = snapshot(model)
    with pytest.raises(OneXNError):
        OneXNPruner(model, example_inputs)
    assert_unchanged(model, before)


@settings(deadline=None, max_examples=20)
@given(name=st.sampled_from(["wide", "grouped", "point"]), value=st.sampled_from([math.nan, math.inf, -math.inf]),
       place=st.integers(0, 10), late=st.booleans())
def test_weights_that_cannot_be_ranked(name, value, place, late):
    model = small_net()
    pruner = OneXNPruner(model, IMAGES) if late else None
    with torch.no_grad():
        model.get_submodule(name).weight.view(-1)[place] = value
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(OneXNError, match="NaN or infinite") as refused:
        pruner.step() if pruner else OneXNPruner(model, IMAGES)
    assert refused.value.layer == name
    assert all(torch.equal(before[key].nan_to_num(), tensor.nan_to_num()) for key, tensor in model.state_dict().items())


JUNK = st.one_of(st.none(), st.integers(max_value=-1), st.floats(min_value=1.5), st.text(max_size=3), st.just([]),
                 st.just({}))


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_wrong_states(data):
    """Of another kind, of a run with other arguments, or of a step that this run does not have."""
    model = small_net()
    pruner = OneXNPruner(model, IMAGES, iterative_steps=3)
    state, before = pruner.state_dict(), snapshot(model)
    key = data.draw(st.sampled_from([None, "step", "recipe", *state["recipe"]]))
    if key is None:
        state = data.draw(JUNK)
    elif key in state:
        state[key] = data.draw(JUNK | st.integers(min_value=4) | st.just(1.0) if key == "step" else JUNK)
    else:
        state["recipe"] = state["recipe"] | {key: data.draw(JUNK)}
    with pytest.raises(OneXNError):
        pruner.load_state_dict(state)
    assert pruner.current_step == 0
    assert_unchanged(model, before)


@pytest.mark.parametrize("spoil", [
    lambda model: parametrizations.weight_norm(model.point),
    lambda model: weight_norm(model.point),
    lambda model: prune.l1_unstructured(model.point, "weight", 0.5),
    lambda model: OneXNPruner(model, IMAGES, block_size=8).step(),
], ids=["parametrized", "old weight_norm", "torch prune", "another block size"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_cannot_carry_a_mask(spoil):
    model = small_net()
    spoil(model)
    before = snapshot(model)
    with pytest.raises(OneXNError):
        OneXNPruner(model, IMAGES)
    assert_unchanged(model, before)


@pytest.mark.parametrize("model", [None, 3, "resnet18", nn.Linear, nn.Sequential()])
def test_what_is_no_model(model):
    with pytest.raises(OneXNError):
        OneXNPruner(model, IMAGES)


def test_what_would_remove_channels_is_refused():
    pruner = OneXNPruner(small_net(), IMAGES)
    with pytest.raises(OneXNError, match="neither channels nor heads"):
        pruner.manual_prune_width(pruner.model.wide, tp.prune_conv_out_channels, 0.5)
    with pytest.raises(OneXNError, match="removes channels"):
        pruner.load_pruning_history([["wide", True, [0]]])
    pruner.load_pruning_history([])
