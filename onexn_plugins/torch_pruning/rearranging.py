"""Rearrangement before the first mask, by the channel spaces of torch-pruning's DependencyGraph.

What the graph cannot trace, refuses or gets wrong comes from the package's own tracer. Either way the result is
proved by `rearrange` before a channel moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import PrunableLayer, weighted_layers
from onexn_plugins.rearrangement.apply import Move
from onexn_plugins.rearrangement.checks import check_model
from onexn_plugins.rearrangement.proof import clean_copy, prove
from onexn_plugins.rearrangement.run import Rearrangement, rearrange
from onexn_plugins.rearrangement.spaces import Space, dim_size, named_tensors
from onexn_plugins.rearrangement.tracing import find_spaces
from onexn_plugins.torch_pruning.graph import build_graph
from onexn_plugins.torch_pruning.spaces import graph_spaces


def rearrange_by_graph(
    model: nn.Module,
    example_inputs: Any,
    layers: Mapping[str, PrunableLayer],
    *,
    block_size: int,
    pruning_ratio: float,
    method: str,
    tracing: Mapping[str, Any],
) -> Rearrangement:
    """Rearrange for the pruning of `layers`; see `onexn_plugins.rearrange`.

    Raises:
        OneXNError: the model cannot be run, copied or compared, or is masked already; it is unchanged then.
    """
    check_model(model)
    if tracing["forward_fn"] is not None:
        raise OneXNError("forward_fn", "a rearrangement is proved by running model(example_inputs)",
                         "Pass example_inputs that the model takes by itself, or leave out rearrange")
    return rearrange(
        model, example_inputs, block_size=block_size, pruning_ratio=pruning_ratio, method=method,
        ignored_layers=[name for name in weighted_layers(model) if name not in layers],
        full=any(isinstance(layer, nn.Linear) for layer in layers.values()),
        spaces=find_all_spaces(model, example_inputs, tracing),
    )


def find_all_spaces(model: nn.Module, example_inputs: Any, tracing: Mapping[str, Any]) -> list[Space]:
    """The graph's spaces that our tracer does not object to and that pass the proof, and the tracer's own besides."""
    found = find_spaces(clean_copy(model), example_inputs)
    try:
        proposed, _ = graph_spaces(build_graph(model, example_inputs, **tracing), model)
    except OneXNError:  # the graph cannot be built; our own tracer then finds all spaces
        proposed = []
    proposed = [space for space in proposed if space.is_movable and found.objection(space) is None]
    generator = torch.Generator().manual_seed(0)
    moves = [Move(space, some_permutation(space, generator)) for space in proposed]
    spaces = [proposed[index] for index in prove(model, example_inputs, moves).passed] if moves else []
    return add_disjoint(model, spaces, found.spaces)


def some_permutation(space: Space, generator: torch.Generator) -> Tensor:
    """A random permutation that the space allows: channels trade places within their class."""
    order = torch.arange(space.channels)
    for each in space.classes.unique():
        places = (space.classes == each).nonzero().flatten()
        order[places] = places[torch.randperm(len(places), generator=generator)]
    return order


def add_disjoint(model: nn.Module, spaces: Sequence[Space], others: Sequence[Space]) -> list[Space]:
    """`spaces`, and those of `others` that carry nothing that `spaces` carry."""
    tensors = named_tensors(model)
    taken: dict[tuple[int, int], Tensor] = {}

    def free(space: Space) -> bool:
        return not any(bool(places(member)[member.positions].any()) for member in space.members)

    def places(member: Any) -> Tensor:
        tensor = tensors[member.name]
        return taken.setdefault((id(tensor), member.dim), torch.zeros(dim_size(tensor, member), dtype=torch.bool))

    for space in spaces:
        for member in space.members:
            places(member)[member.positions] = True
    return [*spaces, *(space for space in others if free(space))]
