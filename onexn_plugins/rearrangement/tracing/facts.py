"""What a trace learns about channels, and compact label tensors.

A *label* is a number per channel; 0 means "never moves" (model inputs, constants). Every activation has a label
tensor of its own shape. It is kept *compact*: a dimension along which labels do not vary has stride 0, so that it
costs no memory, and the varying dimensions can be read off the strides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

LABEL_DTYPE = torch.int32  # float64 labels took 40 to 75 s on ViT-B; int32 ones a few


def compact(labels: Tensor) -> Tensor:
    """The same labels with stride 0 along every dimension where they do not vary."""
    for dim in range(labels.dim()):
        if labels.shape[dim] > 1 and labels.stride(dim) != 0:
            first = labels.narrow(dim, 0, 1)
            if bool((labels == first).all()):
                labels = first.expand(labels.shape)
    return labels


def varying(labels: Tensor) -> list[int]:
    """Dimensions along which compact labels vary."""
    return [dim for dim in range(labels.dim()) if labels.shape[dim] > 1 and labels.stride(dim) != 0]


def distinct(labels: Tensor) -> Tensor:
    """The labels that occur, sorted."""
    return torch.unique(squeeze_constant(labels))


def squeeze_constant(*labels: Tensor) -> Tensor:
    """Labels of one shape, stacked and flat, without the dimensions along which none varies: [n] or [k, n]."""
    shape = labels[0].shape
    for dim in range(len(shape)):
        if all(each.stride(dim) == 0 or shape[dim] == 1 for each in labels):
            labels = tuple(each.narrow(dim, 0, min(1, shape[dim])) for each in labels)
    return labels[0].reshape(-1) if len(labels) == 1 else torch.stack([each.reshape(-1) for each in labels])


def frozen(shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Labels of something that never moves."""
    return torch.zeros((), dtype=LABEL_DTYPE).expand(shape)


def spread(labels: Tensor, shape: torch.Size | tuple[int, ...], dim: int) -> Tensor:
    """A vector of labels laid along `dim` of a tensor of `shape`."""
    view = [1] * len(shape)
    view[dim] = -1
    return compact(labels.view(view)).expand(shape)


@dataclass
class Facts:
    """Everything a trace has to say about which channels move together.

    Attributes:
        unions: pairs of labels that move together, int32 [2, n] each.
        frozen: label -> why it may not move; the first reason counts.
        pinned: labels among these that nobody may move. The others are frozen because the tracer lost sight of them.
        carried: (tensor name, dim, groups) -> label at each position.
        contexts: (labels, cells): channels that are treated alike only inside one cell, such as a conv group.
        fixed: tensor name -> why nothing about it may move.
        pinned_names: names among these that nobody may move.
        lost_exposed: something the tracer had lost sight of was exposed, so that whatever is frozen is pinned.
        unseen: why the model may do something that was not seen, so that nothing at all may move; None if not.
    """

    unions: list[Tensor] = field(default_factory=list)
    frozen: dict[int, str] = field(default_factory=dict)
    pinned: set[int] = field(default_factory=set)
    carried: dict[tuple[str, int, int], Tensor] = field(default_factory=dict)
    contexts: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    fixed: dict[str, str] = field(default_factory=dict)
    pinned_names: set[str] = field(default_factory=set)
    lost_exposed: bool = False
    unseen: str | None = None
    count: int = 1

    def fresh(self, channels: int) -> Tensor:
        """New labels, [channels]."""
        self.count += channels
        return torch.arange(self.count - channels, self.count, dtype=LABEL_DTYPE)

    def freeze(self, labels: Tensor, reason: str, *, pinned: bool = True) -> None:
        """These may not move; pinned=False: as far as the tracer can see."""
        for label in distinct(labels).tolist():
            self.frozen.setdefault(label, reason)
            if pinned:
                self.pinned.add(label)

    def expose(self, labels: Tensor, reason: str) -> None:
        """Something reads the values or the order of these in a way that depends on the input."""
        self.freeze(labels, reason)
        if not bool(labels.all()):  # a 0 may stand for channels that were lost sight of
            self.lost_exposed = True

    def fix(self, name: str, reason: str, *, pinned: bool = True) -> None:
        """Nothing that moves a dimension of this parameter or buffer is allowed."""
        self.fixed.setdefault(name, reason)
        if pinned:
            self.pinned_names.add(name)

    def unify(self, one: Tensor, other: Tensor, reason: str) -> None:
        """Labels at equal places move together; beside a 0 they freeze."""
        first, second = squeeze_constant(one, other).long()
        codes = torch.unique(first * self.count + second)  # many times faster than unique(dim=1)
        pairs = torch.stack([codes // self.count, codes % self.count]).to(LABEL_DTYPE)
        still = (pairs == 0).any(0)
        self.freeze(pairs[:, still], reason)
        pairs = pairs[:, ~still & (pairs[0] != pairs[1])]
        if pairs.numel():
            self.unions.append(pairs)

    def carry(self, name: str, dim: int, labels: Tensor, groups: int = 1) -> None:
        """Position i of the tensor's dimension belongs to channel labels[i]."""
        key = (name, dim, groups)
        if key in self.carried:
            self.unify(self.carried[key], labels, f"{name} is used twice with different channels")
        else:
            self.carried[key] = labels.contiguous()

    def alike_within(self, labels: Tensor, cells: Tensor | None = None) -> None:
        """Channels are treated alike only within equal cells (all of them where no cells are given)."""
        labels = labels.reshape(-1)
        self.contexts.append((labels, torch.zeros_like(labels) if cells is None else cells.reshape(-1)))
