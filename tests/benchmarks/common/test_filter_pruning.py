import copy

import pytest
import torch
from nni.common.concrete_trace_utils import concrete_tracer
from nni.compression.pruning import FPGMPruner, L1NormPruner
from torch import nn

from benchmarks.common.filter_pruning import prune_filters, tracing_on_this_torch
from onexn_plugins import fold


def plain_net() -> nn.Module:
    """No batch norm: a filter that is masked together with its bias contributes nothing."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()


@pytest.mark.parametrize("pruner", [L1NormPruner, FPGMPruner])
def test_filters_are_cut_out_and_the_function_is_that_of_the_masked_model(pruner):
    model, images = plain_net(), torch.randn(2, 3, 12, 12)
    masked = copy.deepcopy(model)
    config = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]
    pruner(masked, config).compress()
    fold(masked)
    small = prune_filters(model, pruner, config, images)
    assert [tuple(module.weight.shape) for module in small.modules() if isinstance(module, nn.Conv2d)] == [
        (8, 3, 3, 3), (8, 8, 3, 3)]
    assert not any(module.training for module in small.modules())
    assert torch.allclose(small(images), masked(images), atol=1e-6)


def test_nnis_tracer_is_left_as_it_was():
    leaves, is_impure = concrete_tracer.ConcreteTracer.default_autowrap_leaf_function, (
        concrete_tracer.node_is_impure_wrapper)
    before = set(leaves)
    with tracing_on_this_torch():
        assert set(leaves) < before
    assert set(leaves) == before
    assert concrete_tracer.node_is_impure_wrapper is is_impure
