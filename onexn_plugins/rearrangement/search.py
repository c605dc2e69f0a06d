"""Which permutation a space gets: the paper's sort, or the search of `swap.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from onexn_plugins.rearrangement.norms import KernelNorms, Producer
from onexn_plugins.rearrangement.swap import swap

METHODS = ("swap", "sort")


def arrange(norms: KernelNorms, producers: list[Producer], classes: Tensor, method: str,
            generator: torch.Generator) -> Tensor:
    """An order for the channels of one space, int64 [channels]: slot i takes channel order[i].

    Args:
        norms: kernel norms of all layers in their present order.
        producers: layers to prune whose rows the channels are.
        classes: int64 [channels]; channels of equal class may trade places.
        method: "sort", or "swap", which keeps the best of the present order, "sort" and what it finds.
        generator: of the random choices of "swap".
    """
    by_norm = sort(norms, producers, classes)
    if method == "sort":
        return by_norm
    present = torch.arange(len(classes))
    found = swap(norms, producers, classes, by_norm, generator)
    return max((present, by_norm, found), key=lambda order: _kept(norms, producers, order))


def sort(norms: KernelNorms, producers: list[Producer], classes: Tensor) -> Tensor:
    """Channels in descending order of their L1 norm, those of one class in the places of that class.

    The filter rearrangement of "1×N Pattern for Pruning Convolutional Neural Networks" (TPAMI 2022). Where
    several layers share their channels the norms are added.
    """
    strength = torch.stack([norms.kernels[name][rows].sum(1) for name, rows in producers]).sum(0)
    order = torch.empty_like(classes)
    for each in classes.unique():
        places = (classes == each).nonzero().flatten()
        order[places] = places[strength[places].argsort(descending=True, stable=True)]
    return order


def _kept(norms: KernelNorms, producers: list[Producer], order: Tensor) -> float:
    moved = norms.moved(producers, order)
    return sum(moved.kept(name) for name in moved.kernels)
