"""What OneXNPruner's interactive step yields: a torch-pruning Group whose prune() masks blocks."""

from __future__ import annotations

from typing import Any

import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning._helpers import GroupItem

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import PrunableConv, PrunableLayer, pattern_of
from onexn_plugins.masking import attach
from onexn_plugins.pattern import BlockPattern


class BlockGroup(tp.dependency.Group):  # type: ignore[misc]
    """One layer and the blocks it is to keep.

    Only the layer itself is in the group: a mask changes no shape, so nothing else has to follow. For the same
    reason the group is never written into the graph's pruning history, which would slice channels when replayed.

    Attributes:
        name, layer: the layer.
        block_size: N.
        keep: bool [block_rows, in / groups], the blocks that stay; another tensor may be put in its place
            before prune().
    """

    def __init__(self, name: str, layer: PrunableLayer, block_size: int, keep: Tensor | None = None,
                 straight_through: bool = False) -> None:
        super().__init__()
        self.name, self.layer, self.block_size, self.keep = name, layer, block_size, keep
        self._straight_through = straight_through
        self._group = [root_item(layer, name)]

    @property
    def pattern(self) -> BlockPattern:
        return pattern_of(self.layer, self.block_size, self.name)

    def prune(self, idxs: Any = None, record_history: bool = True) -> None:
        """Mask the layer to `keep`.

        Raises:
            OneXNError: idxs are given (they name channels, which stay), or the mask does not fit the layer.
        """
        if idxs is not None:
            raise OneXNError(self.name, "a 1×N group removes blocks, not channels",
                             "Call prune() without indices, or set group.keep first")
        if self.keep is None:
            raise OneXNError(self.name, "the group says not which blocks to keep", "Set group.keep first")
        attach(self.layer, self.keep, self.block_size, self.name, straight_through=self._straight_through)


def root_item(layer: nn.Module, name: str) -> GroupItem:
    """The group's only item, as torch-pruning writes it: all output channels of `layer`."""
    convolution = isinstance(layer, PrunableConv)
    function = tp.prune_conv_out_channels if convolution else tp.prune_linear_out_channels
    node = tp.dependency.Node(layer, None, name)
    channels = list(range(layer.out_channels if convolution else layer.out_features))  # type: ignore[arg-type]
    item = GroupItem(tp.dependency.Dependency(function, function, source=node, target=node), channels)
    item.root_idxs = channels
    return item
