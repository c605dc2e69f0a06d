"""Compares two models without the package's own proof: float64 copies, random biases and norms, fresh inputs."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.inputs import map_tensors, tensors_in
from onexn_plugins.layers import out_first
from onexn_plugins.rearrangement import Rearrangement, rearrange


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random biases, norm scales and running statistics: zeros and ones would hide a channel that went astray."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and tensor.dim() <= 1:
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(noise + 0.5 if name.endswith("running_var") else tensor + noise * 0.6 - 0.3)
    return model


def outputs_in_double(model: nn.Module, inputs: Any) -> list[Tensor]:
    """What the model computes in eval mode, in float64."""
    double = copy.deepcopy(model).double().eval()
    inputs = map_tensors(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor, inputs)
    with torch.no_grad():
        if isinstance(inputs, dict):
            return tensors_in(double(**inputs))
        return tensors_in(double(*inputs) if isinstance(inputs, (tuple, list)) else double(inputs))


def largest_change(one: list[Tensor], other: list[Tensor]) -> float:
    """Largest |a - b| / max |a| over pairs of outputs."""
    assert [each.shape for each in one] == [each.shape for each in other]
    assert all(bool(each.isfinite().all()) for each in [*one, *other])
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other, strict=True))


def fresh(inputs: Any, seed: int = 99) -> Any:
    """Other inputs of the same kind; integers, such as word numbers, stay."""
    generator = torch.Generator().manual_seed(seed)
    return map_tensors(
        lambda tensor: torch.randn(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor, inputs)


def rearranged_alike(model: nn.Module, inputs: Any, **arguments: Any) -> Rearrangement:
    """Rearrange the model, and assert that it computes on fresh inputs what it computed before."""
    unseen = fresh(inputs)
    before = outputs_in_double(model, unseen)
    result = rearrange(model, inputs, **arguments)
    assert result.max_error < 1e-9
    assert largest_change(before, outputs_in_double(model, unseen)) < 1e-9
    return result


def _rows(layer: Any) -> Tensor:
    """One for each output channel."""
    return out_first(layer, layer.weight.detach())


def assert_rows_moved(model: nn.Module, original: nn.Module, result: Rearrangement) -> None:
    """Every permutation that was reported is the one that the layer's rows went through."""
    for name, order in result.permutations.items():
        now, then = (_rows(each.get_submodule(name)).double().abs().flatten(1).sum(1) for each in (model, original))
        assert torch.allclose(now, then[order], rtol=1e-12, atol=0), name
        assert not torch.equal(now, then), name
