"""Networks run on all images side by side, as many as fit into memory: more join where feature maps are smaller."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.repair.images import Images, size_of
from onexn_plugins.repair.lockstep import Run, layer_of
from onexn_plugins.repair.surroundings import Surroundings

MEMORY = 6 * 2**30  # bytes of activations held at a time


class Abreast(AbstractContextManager["Abreast"]):
    """
    Attributes:
        groups: of each network its runs, one a batch, all of them standing at the same layer.
        count: images that they see.
    """

    def __init__(self, models: Sequence[nn.Module], images: Images, weights: Sequence[Mapping[str, Tensor]],
                 around: Mapping[str, Surroundings], wanted: frozenset[int] = frozenset(),
                 context: Callable[[], Any] = torch.no_grad) -> None:
        """
        Args:
            models: that compute the same layers.
            images: for all of them.
            weights: of each model, layer -> its weight.
            around: of these layers, in the order in which they are computed.
            wanted: numbers of calls whose results are kept.
            context: in which they run.
        """
        self.groups: list[list[Run]] = [[] for _ in models]
        self.count = 0
        self._models, self._weights, self._around = models, weights, around
        self._wanted, self._context = wanted, context
        self._left, self._waiting = list(around), deque(images.shuffled().batches)

    def __exit__(self, *error: object) -> None:
        for run in (run for group in self.groups for run in group):
            run.stop()

    def at(self) -> str | None:
        """The layer that all stand at, after those have joined that fit from here on; None at the end."""
        if not self._left:
            return None
        allowed = room([self._around[name] for name in self._left], len(self._models))
        while self._waiting and (self.count + size_of(self._waiting[0]) <= allowed or not self.count):
            self._join(self._waiting.popleft())
        layer = layer_of(self.groups[0])
        if layer is not None:
            self._left.remove(layer)
        return layer

    def _join(self, batch: Any) -> None:
        """The layers that the others have passed are computed without a stop, as they are now."""
        for model, weights, group in zip(self._models, self._weights, self.groups, strict=True):
            names = {id(weights[name]): name for name in self._left}
            group.append(Run(model, batch, names, self._wanted, self._context))
            group[-1].advance()
        self.count += size_of(batch)


def room(around: Sequence[Surroundings], networks: int = 1) -> int:
    """How many images may run through these layers abreast.

    Of each image what a layer reads stays alive, what a skip connection holds and what is in between.
    """
    return MEMORY // max(1, 3 * networks * max((each.bytes for each in around), default=0))
