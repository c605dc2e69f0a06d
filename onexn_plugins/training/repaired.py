"""Label-free repair as the start of fine-tuning, with whole channels and blocks together where asked."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.pattern import check_block_size
from onexn_plugins.repair import repair
from onexn_plugins.repair.run import check_channels
from onexn_plugins.selection import check_ratio
from onexn_plugins.training.data.images import Images, Request, stream
from onexn_plugins.training.methods import Method


class RepairedBlocks(Method):
    """1×N blocks pruned and the rest fitted to the dense network by `onexn_plugins.repair`, before the first step.

    Ratios differ from layer to layer, so that least is lost; in all, pruning_ratio of the blocks go and at least as
    much of their multiply-adds. A run that goes on does the repair once more, which gives the same network.

    Args:
        images: to calibrate on, drawn from these training images; their labels are not used.
        count: how many.
        block_size: N.
        pruning_ratio: as above, with channels and blocks together.
        channels: share of the multiply-adds that goes with whole hidden channels, really cut out, before the blocks;
            "auto" for as many as pay.
        rearrange: "none" or "swap": move channels first.
        full: Linear layers too.
        seed: of the images that are drawn and of the rearrangement.
    """

    def __init__(self, images: Images, *, count: int = 256, block_size: int = 4, pruning_ratio: float = 0.5,
                 channels: float | str = 0.0, rearrange: str = "none", full: bool = False, seed: int = 0) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(images):
            raise OneXNError("repair", f"needs from 1 to all {len(images)} training images, got {count!r}",
                             "A few hundred are enough")
        if rearrange not in ("none", "swap"):
            raise OneXNError("rearrange", f"repair rearranges by swapping, not by {rearrange!r}", "Use swap or none")
        check_block_size(block_size)
        check_channels(channels, check_ratio(pruning_ratio), None)
        self.count, self.block_size, self.pruning_ratio, self.channels = count, block_size, pruning_ratio, channels
        self.rearrange, self.full, self.seed = rearrange, full, seed
        self._images = images

    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        chosen = torch.randperm(len(self._images), generator=stream(self.seed))[: self.count]
        repair(model, self._images[Request(0, chosen.tolist())].images, block_size=self.block_size,
               pruning_ratio=self.pruning_ratio, channels=self.channels, rearrange=self.rearrange == "swap",
               full=self.full or None, seed=self.seed)
        return model
