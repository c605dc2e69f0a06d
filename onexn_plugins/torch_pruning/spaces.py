"""Channel spaces from torch-pruning's DependencyGraph.

The graph knows which indices of which layers belong to a channel. Its own groups merge positions that two channels
claim, which is fine for removing channels and wrong for moving them, so its edges are walked here without merging.

The graph's reading is a proposal. It sees neither buffers nor what is detached or added to the model's input, and
it maps the outputs of split and chunk in the order it met their consumers. Whoever moves channels by these spaces
has to prove the result (`onexn_plugins.rearrangement.proof`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning._helpers import _HybridIndex as ChannelIndex

from onexn_plugins.layers import is_depthwise
from onexn_plugins.rearrangement.spaces import Member, Space

# Nodes without parameters, through which channels pass.
PASSING = {tp.ops.OPTYPE[name] for name in ("CONCAT", "SPLIT", "ELEMENTWISE", "RESHAPE", "UNBIND", "EXPAND", "SLICE")}
MOST_EDGES = 5000  # in one space; beyond that the graph repeats itself


class UnknownCoupling(Exception):
    """The graph does not say how the channels of a layer can move; the message says why."""


@dataclass
class _Carrier:
    """A dimension met on the walk: which channel lies at which position.

    Attributes:
        size: positions of the dimension, all conv groups together.
        groups: as in `Member`.
        confined: conv groups among which channels may not move, on either side of a grouped convolution.
    """

    size: int
    groups: int = 1
    confined: int = 1
    channel_at: dict[int, int] = field(default_factory=dict)

    def put(self, position: int, channel: int, name: str) -> None:
        if not 0 <= position < self.size:
            raise UnknownCoupling(f"position {position} is outside {name}")
        if self.channel_at.setdefault(position, channel) != channel:
            raise UnknownCoupling(f"two channels meet at one position of {name}")

    def copies(self, channels: int) -> Tensor:
        """How often each channel occurs: int64 [channels]."""
        return torch.tensor(list(self.channel_at.values()), dtype=torch.int64).bincount(minlength=channels)


def graph_spaces(graph: tp.DependencyGraph, model: nn.Module) -> tuple[list[Space], list[tuple[str, str]]]:
    """The spaces of all Conv and Linear layers, and (layer, reason) for those whose output channels must stay."""
    names = {module: name for name, module in model.named_modules()}
    names |= {parameter: name for name, parameter in model.named_parameters()}
    spaces: list[Space] = []
    refused: list[tuple[str, str]] = []
    produced: set[str] = set()
    for module in list(graph.module2node):
        if not isinstance(module, (tp.ops.TORCH_CONV, tp.ops.TORCH_LINEAR)) or module not in names:
            continue
        if f"{names[module]}.weight" in produced or is_depthwise(module):
            continue
        try:
            found = spaces_of(graph, module, names)
        except UnknownCoupling as reason:
            refused.append((names[module], str(reason)))
            continue
        spaces += found
        produced.update(member.name for space in found for member in space.members if member.dim == 0)
    return spaces, [(name, reason) for name, reason in refused if f"{name}.weight" not in produced]


def spaces_of(graph: tp.DependencyGraph, layer: nn.Module, names: dict[Any, str]) -> list[Space]:
    """The spaces of the layer's output channels: several where they are split and go different ways.

    Raises:
        UnknownCoupling: they must not move, or the graph does not know how.
    """
    channels = graph.get_out_channels(layer)
    carriers: dict[tuple[str, int], _Carrier] = {}
    for edge, indices in _walk(graph, layer, channels):
        for (name, dim), met in _dimensions(graph, edge, names).items():
            carrier = carriers.setdefault((name, dim), met)
            for index in indices:
                if index.root_idx is None:
                    raise UnknownCoupling("grouped-query attention shares heads")
                carrier.put(index.idx, index.root_idx, name)
    copies = torch.stack([carrier.copies(channels) for carrier in carriers.values()], dim=1)
    ways, way_of = torch.unique(copies, dim=0, return_inverse=True)
    return [_space(carriers, (way_of == way).nonzero().flatten().tolist()) for way in range(len(ways))]


def _walk(graph: tp.DependencyGraph, layer: nn.Module, channels: int) -> Iterator[tuple[Any, list[Any]]]:
    """Every edge that the layer's output channels reach, with the index of each channel at its target."""
    node, function = graph.module2node[layer], graph.get_pruner_of_module(layer).prune_out_channels
    start = tp.dependency.Dependency(function, function, source=node, target=node)
    stack = [(start, [ChannelIndex(idx=index, root_idx=index) for index in range(channels)])]
    seen = set()
    while stack:
        edge, indices = stack.pop()
        key = (id(edge.target), edge.handler, tuple(indices))
        if key in seen:
            continue
        seen.add(key)
        if len(seen) > MOST_EDGES:
            raise UnknownCoupling(f"more than {MOST_EDGES} edges lead on from it")
        yield edge, indices
        onwards = [following for following in edge.target.dependencies if following.is_triggered_by(edge.handler)]
        if not edge.target.outputs and not _ends_here(graph, edge):
            raise UnknownCoupling("it feeds an output of the model")
        for following in onwards:
            mapped = indices
            for mapping in following.index_mapping:
                mapped = mapped if mapping is None else mapping(mapped)
            if mapped:
                stack.append((following, mapped))


def _ends_here(graph: tp.DependencyGraph, edge: Any) -> bool:
    """Does the edge's target read the channels without passing them on? Parameters are sources, not ends."""
    reads = isinstance(edge.target.module, (tp.ops.TORCH_CONV, tp.ops.TORCH_LINEAR, nn.Parameter))
    return reads and not (graph.is_out_channel_pruning_fn(edge.handler) and isinstance(edge.target.module, nn.Module))


def _dimensions(graph: tp.DependencyGraph, edge: Any, names: dict[Any, str]) -> dict[tuple[str, int], _Carrier]:
    """(tensor name, dim) of everything at the edge's target that carries the channels."""
    module, kind = edge.target.module, edge.target.type
    if kind in PASSING:
        return {}
    if kind == tp.ops.OPTYPE.OUTPUT:
        raise UnknownCoupling("it feeds an output of the model")
    if module not in names:
        raise UnknownCoupling(f"{type(module).__name__} is no layer of the model")
    name = names[module]
    if isinstance(module, nn.Parameter):
        dim = edge.target.pruning_dim % module.dim()
        return {(name, dim): _Carrier(module.shape[dim])}
    if isinstance(module, (tp.ops.TORCH_CONV, tp.ops.TORCH_LINEAR)):
        return _weight_dimensions(module, name, graph.is_out_channel_pruning_fn(edge.handler))
    if isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU, nn.Embedding)):
        return _norm_dimensions(module, name)
    raise UnknownCoupling(f"it passes {name}, a {type(module).__name__}, which the graph treats as a whole")


def _weight_dimensions(module: Any, name: str, output: bool) -> dict[tuple[str, int], _Carrier]:
    transposed, groups = getattr(module, "transposed", False), getattr(module, "groups", 1)
    if transposed and groups > 1:
        raise UnknownCoupling(f"it passes {name}, a transposed convolution with groups")
    out_channels, in_channels = (module.weight.shape[0], module.weight.shape[1] * groups)
    if transposed:
        in_channels, out_channels = out_channels, in_channels
    one_to_one = groups == in_channels == out_channels
    confined = 1 if one_to_one else groups
    if not output and not one_to_one:
        return {(f"{name}.weight", 0 if transposed else 1): _Carrier(in_channels, groups, confined)}
    found = {(f"{name}.weight", 1 if transposed else 0): _Carrier(out_channels, confined=confined)}
    if module.bias is not None:
        found[f"{name}.bias", 0] = _Carrier(out_channels)
    return found


def _norm_dimensions(module: Any, name: str) -> dict[tuple[str, int], _Carrier]:
    if isinstance(module, nn.GroupNorm) and module.num_groups not in (1, module.num_channels):
        raise UnknownCoupling(f"it passes {name}, a GroupNorm of several channels per group")
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) != 1:
        raise UnknownCoupling(f"it passes {name}, a LayerNorm over several dimensions")
    if isinstance(module, nn.Embedding):
        return {(f"{name}.weight", 1): _Carrier(module.embedding_dim)}
    tensors = ("weight", "bias", "running_mean", "running_var")
    found = {tensor: getattr(module, tensor, None) for tensor in tensors}
    return {(f"{name}.{tensor}", 0): _Carrier(len(values)) for tensor, values in found.items()
            if isinstance(values, Tensor) and len(values) > 1}


def _space(carriers: dict[tuple[str, int], _Carrier], channels: list[int]) -> Space:
    """The space of channels that go the same way: the same number of copies in every carrier."""
    number = {channel: index for index, channel in enumerate(channels)}
    members = []
    confinements = [torch.zeros(len(channels), 1, dtype=torch.int64)]
    for (name, dim), carrier in carriers.items():
        places: list[list[int]] = [[] for _ in channels]
        for position, channel in sorted(carrier.channel_at.items()):
            if channel in number:
                places[number[channel]].append(position)
        positions = torch.tensor(places, dtype=torch.int64)
        if positions.numel():
            members.append(Member(name, dim, positions, carrier.groups))
            confinements.append(positions // (carrier.size // carrier.confined))
    # Channels may trade places if they lie in the same conv groups wherever they go.
    classes = torch.unique(torch.cat(confinements, dim=1), dim=0, return_inverse=True)[1]
    return Space(tuple(members), classes)
