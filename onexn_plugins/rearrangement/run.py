"""rearrange(): find the spaces, choose permutations, prove them on a copy, and only then move the channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.inputs import check_inputs
from onexn_plugins.layers import PrunableLayer, check_layers, out_dim, out_first, prunable_layers
from onexn_plugins.pattern import check_block_size
from onexn_plugins.rearrangement.applied import applied_moves, permutations_of, remember
from onexn_plugins.rearrangement.apply import Move, apply_moves
from onexn_plugins.rearrangement.checks import check_model, check_options, check_saliency
from onexn_plugins.rearrangement.norms import KernelNorms, Producer, row_order
from onexn_plugins.rearrangement.proof import BAR, Proof, clean_copy, prove
from onexn_plugins.rearrangement.search import arrange
from onexn_plugins.rearrangement.spaces import Space, check_spaces, named_tensors
from onexn_plugins.rearrangement.tracing import find_spaces
from onexn_plugins.scores import check_finite
from onexn_plugins.selection import check_ratio

Progress = Callable[[int, int, str], None]  # (steps done, steps in all, what is being done)
Still = dict[tuple[str, int], str]  # (tensor name, dim) -> why nothing along it moves


@dataclass(frozen=True)
class LayerRearrangement:
    """One prunable layer.

    Attributes:
        name, shape: qualified name and weight shape [out, in / groups, *kernel], of transposed convolutions too.
        retained_before, retained_after: fraction of its L1 norm that pruning keeps.
        moved: its output channels have a new order.
        refused: why they may not be moved; None where they may.
    """

    name: str
    shape: tuple[int, ...]
    retained_before: float
    retained_after: float
    moved: bool
    refused: str | None


@dataclass(frozen=True)
class Rearrangement:
    """What `rearrange` did.

    Attributes:
        retained_before, retained_after: fraction of L1 that pruning keeps, over all prunable layers together.
        max_error: largest relative change of any output of the float64 probe, at most 1e-9.
        refused: (layer, reason) of prunable layers whose channels may not move.
        permutations: layer -> int64 [out_channels]; output channel i is what channel permutation[i] was.
        layers: every prunable layer in detail.
        moves: the spaces that moved, for `apply_moves`, with all tensors that follow.
    """

    retained_before: float
    retained_after: float
    max_error: float
    refused: list[tuple[str, str]]
    permutations: dict[str, Tensor]
    layers: list[LayerRearrangement]
    moves: list[Move]


def rearrange(model: nn.Module, example_inputs: Any, *, block_size: int = 4, pruning_ratio: float = 0.5,
              method: str = "swap", ignored_layers: Iterable[str | nn.Module] = (), seed: int = 0,
              full: bool | None = None, spaces: Sequence[Space] | None = None,
              saliency: Mapping[str, Tensor] | None = None, progress: Progress | None = None) -> Rearrangement:
    """Move the output channels of the model's layers so that 1×N pruning keeps more, in place.

    The function stays as it was: everything that reads a channel follows it, model outputs never move, and every
    move was proved on a copy first. What cannot be proved stays, and is reported with its reason.
    Rearrange before the masks are attached and before an optimizer has gathered state. The model remembers the moves,
    so that save_checkpoint records them.

    Args:
        model: any eager model; mode, hooks, device, dtype, requires_grad and Parameter objects stay.
        example_inputs: what forward takes: a tensor, a tuple or a dict.
        block_size: of the pruning that will follow.
        pruning_ratio: likewise.
        method: "swap", a search; or "sort", the paper's: rows by descending L1 norm.
        ignored_layers: names or modules that will not be pruned. Their channels do not count, but may follow others.
        seed: of the search and the proof.
        full: Linear layers are pruned too. By default only where the model has no convolution that is pruned by
            default, ignored or not.
        spaces: channel spaces from elsewhere; by default our own tracer finds them. Either way its check holds: a
            channel whose value or number decides something stays.
        saliency: layer -> what each kernel is worth, [out, in / groups], not negative; instead of its L1 norm. Every
            layer to prune needs one. What is reported as retained stays the L1 norm.
        progress: called as progress(done, total, what).

    Raises:
        OneXNError: bad arguments, NaN weights, a masked or wrapped model, or a model that cannot be run, copied or
            compared. The model is then as before.
    """
    check_options(method, seed, full, spaces, progress)
    check_inputs(example_inputs)
    check_model(model)
    if full is None:
        full = not prunable_layers(model)
    return rearrange_layers(model, example_inputs, prunable_layers(model, ignored_layers, full=full),
                            block_size=block_size, pruning_ratio=check_ratio(pruning_ratio), method=method, seed=seed,
                            spaces=spaces, saliency=saliency, progress=progress)


def rearrange_layers(model: nn.Module, example_inputs: Any, layers: dict[str, PrunableLayer], *, block_size: int,
                     pruning_ratio: float | Mapping[str, float], method: str = "swap", seed: int = 0,
                     spaces: Sequence[Space] | None = None, saliency: Mapping[str, Tensor] | None = None,
                     progress: Progress | None = None) -> Rearrangement:
    """`rearrange` for the pruning of exactly these layers, each at its own ratio where a mapping gives one."""
    check_options(method, seed, None, spaces, progress)
    check_inputs(example_inputs)
    check_model(model)
    ratios = _check_layers(layers, block_size, pruning_ratio)
    check_saliency(saliency, layers)
    report = progress or (lambda done, total, what: None)
    found, still = _spaces(model, example_inputs, spaces, report)
    before, overall_before = KernelNorms(layers, block_size, ratios).retained()
    norms = KernelNorms(layers, block_size, ratios, saliency)
    moves = _search(found, layers, norms, method, seed, report)
    del norms  # as large as the weights of a transformer in float64
    report(len(moves), len(moves) + 1, "proof")
    proof = prove(model, example_inputs, moves, seed=seed)
    passed = [moves[index] for index in proof.passed]
    apply_moves(model, passed)
    remember(model, [*applied_moves(model), *passed])
    after, overall_after = KernelNorms(layers, block_size, ratios).retained()
    permutations = permutations_of(passed, layers)
    refused = _refused(layers, found, moves, proof, still)
    report(len(moves) + 1, len(moves) + 1, "done")
    return Rearrangement(
        overall_before, overall_after, proof.max_error, list(refused.items()), permutations,
        [LayerRearrangement(name, tuple(out_first(layer, layer.weight).shape), before[name], after[name],
                            name in permutations, refused.get(name)) for name, layer in layers.items()],
        passed,
    )


def _check_layers(layers: dict[str, PrunableLayer], block_size: int,
                  pruning_ratio: float | Mapping[str, float]) -> dict[str, float]:
    """The ratio of each layer; OneXNError where a layer cannot be ranked, or an option is wrong."""
    check_block_size(block_size)
    check_layers(layers)
    for name, layer in layers.items():
        check_finite(layer.weight, name)
    if isinstance(pruning_ratio, Mapping):
        return {name: check_ratio(pruning_ratio[name], name) for name in layers}
    return dict.fromkeys(layers, check_ratio(pruning_ratio))


def _spaces(model: nn.Module, example_inputs: Any, spaces: Sequence[Space] | None,
            report: Progress) -> tuple[list[Space], Still]:
    """The spaces, and for tensors that stay the reason. The tracer has a veto over spaces from elsewhere."""
    if spaces is not None:
        check_spaces(model, spaces)
    report(0, 1, "trace")
    found = find_spaces(clean_copy(model), example_inputs)
    if found.unseen:
        reason = f"its channels stay: {found.unseen}"
        return [], {(name, dim): reason for name in named_tensors(model) for dim in (0, 1)}
    if spaces is None:
        return list(found.spaces), found.still
    objections = [found.objection(space) for space in spaces]
    still = {(member.name, member.dim): f"its channels stay: {reason}"
             for space, reason in zip(spaces, objections, strict=True) if reason for member in space.members}
    return [space for space, reason in zip(spaces, objections, strict=True) if not reason], {**found.still, **still}


def _search(spaces: Sequence[Space], layers: dict[str, PrunableLayer], norms: KernelNorms, method: str, seed: int,
            report: Progress) -> list[Move]:
    """A move for every space that holds rows of a layer to prune. Spaces that share a layer are arranged in turn."""
    generator = torch.Generator().manual_seed(seed)
    moves = []
    for number, space in enumerate(spaces):
        producers: list[Producer] = [(name, rows[:, copy]) for name, rows in space.producers(layers).items()
                                     for copy in range(rows.shape[1])]
        if producers:
            report(number, len(spaces) + 1, producers[0][0])
            order = arrange(norms, producers, space.classes, method, generator)
            for name, rows in producers:
                norms.reorder(name, row_order(rows, order, len(norms.kernels[name])))
            moves.append(Move(space, order))
    return moves


def _refused(layers: dict[str, PrunableLayer], spaces: Sequence[Space], moves: Sequence[Move], proof: Proof,
             still: Still) -> dict[str, str]:
    """layer -> why none of its channels may move."""
    reasons: dict[str, str] = {}
    for index, error in proof.failed.items():
        for name in moves[index].space.producers(layers):
            reasons[name] = f"moving its channels changes the output by {error:.1e} of its scale, above {BAR:.0e}"
    movable = {name for index in proof.passed for name in moves[index].space.producers(layers)}
    places = {name: (id(layer.weight), out_dim(layer)) for name, layer in layers.items()}
    stay = {(places[name][0], dim): still[f"{name}.weight", dim] for name in layers for dim in (0, 1)
            if (f"{name}.weight", dim) in still}
    return {name: reasons.get(name, stay.get(places[name], "no channel space reaches it"))
            for name in layers if name not in movable}
