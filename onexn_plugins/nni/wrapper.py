"""The wrapper that NNI puts around each pruned layer, here one that does not lose its mask when it is taken off.

NNI's own `unwrap` leaves dense weights. This one leaves the block mask as a parametrization
(`onexn_plugins.masking`), whoever calls it: the pruner, a scheduler, or `onexn_plugins.fold`.
"""

from __future__ import annotations

from typing import Any

import torch
from nni.compression.base.target_space import PruningTargetSpace
from nni.compression.base.wrapper import ModuleWrapper
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import PrunableLayer, is_transposed, out_first, pattern_of
from onexn_plugins.masking import attach, dense_weight, detach, mask_of, put_weight_first, unwrap_hooks
from onexn_plugins.pattern import BlockPattern, nonzero_blocks, weight_mask

_TARGET = "weight"


class BlockMaskWrapper(ModuleWrapper):
    """NNI's ModuleWrapper for one layer pruned in 1×N blocks.

    Attributes:
        pattern: how the weight is cut into blocks.
        weight: the layer's dense weight while it is wrapped; NNI trains this one.
    """

    pattern: BlockPattern

    def __init__(self, module: PrunableLayer, name: str, block_size: int) -> None:
        super().__init__(module, name)
        dense = dense_weight(module)
        # The very parameter, and not NNI's copy, wherever it lies: optimizers that have it go on training it.
        self.weight = dense if isinstance(dense, nn.Parameter) else nn.Parameter(
            dense.detach().clone(), requires_grad=dense.requires_grad)
        self.pattern = pattern_of(module, block_size, name)

    @classmethod
    def adopt(cls, wrapper: ModuleWrapper, block_size: int) -> BlockMaskWrapper:
        """Make another compressor's wrapper keep block masks too; it stays the same object for that compressor."""
        wrapper.__class__ = cls
        wrapper.pattern = pattern_of(wrapper.module, block_size, wrapper.name)
        return wrapper

    @property
    def target(self) -> Any:
        """NNI's record of the pruned weight (settings and mask); None before the wrapper is configured for pruning."""
        return self.pruning_target_spaces.get(_TARGET)

    @property
    def keep(self) -> Tensor:
        """The blocks that stay, bool [block_rows, in / groups]."""
        return self._blocks_of(self.target.mask)

    def keep_to_mask(self, keep: Tensor) -> Tensor:
        """Kept blocks as NNI's mask: ones and zeros of the weight's dtype, [out, in / groups, 1, 1] for a Conv2d."""
        return weight_mask(keep, self.pattern, self.weight, is_transposed(self.module)).to(self.weight)

    def _blocks_of(self, mask: Tensor) -> Tensor:
        return nonzero_blocks(out_first(self.module, mask), self.pattern)

    def extend_target_spaces(self, sub_config: dict[str, Any], mode: str) -> dict[str, Any]:
        if mode != "pruning":
            return super().extend_target_spaces(sub_config, mode)
        # NNI knows settings by class name and has none for subclasses of Conv2d. granularity None: no NNI scaler.
        settings = {key: value for key, value in sub_config.items() if key != "target_names"} | {"granularity": None}
        self.pruning_target_spaces.update(self._create_target_spaces({_TARGET: settings}, PruningTargetSpace))
        return dict(self.pruning_target_spaces)

    def wrap(self) -> None:
        """Put the wrapper on; a block mask that is on the layer becomes the wrapper's mask."""
        if getattr(self.module, "_nni_wrapper", None) is self:
            return
        if self.target is not None:
            mask = mask_of(self.module)
            if mask is not None:
                self.target.mask = self.keep_to_mask(mask.keep)
                detach(self.module)
            if self.module.weight is not self.weight:  # training may have gone on without the wrapper
                with torch.no_grad():
                    self.weight.copy_(self.module.weight)
        super().wrap()
        self.refresh()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().forward(*args, **kwargs)
        if self.target is not None:  # NNI leaves a weight with its graph on the layer, which copy.deepcopy refuses
            self.module.weight = self.module.weight.detach()
        return outputs

    def refresh(self) -> None:
        """Show the masked weight on the wrapped layer, as NNI does at each forward."""
        if self.target is not None and getattr(self.module, "_nni_wrapper", None) is self:
            self.module.weight = (self.weight * self.target.mask).detach()

    def unwrap(self) -> None:
        """Take the wrapper off and leave the mask on the layer as a parametrization; a second call does nothing."""
        if getattr(self.module, "_nni_wrapper", None) is not self:
            return
        _take_off(self, super().unwrap)
        if self.target is not None:
            keep = self.keep
            if not bool(keep.all()):
                attach(self.module, keep, self.pattern.block_size, self.name)

    def check_mask(self, mask: Tensor) -> None:
        """Raise OneXNError unless mask holds ones and zeros in whole blocks."""
        if mask.dim() == self.weight.dim() and mask.shape[:2] == self.weight.shape[:2]:
            whole = self.keep_to_mask(self._blocks_of(mask)).to(mask)
            if bool((mask == whole).all()):
                return
        raise OneXNError(self.name, f"the mask is not made of whole 1×{self.pattern.block_size} blocks",
                         "Make masks with generate_masks()")


def take_wrappers_off(model: nn.Module) -> None:
    """Unwrap all pruning wrappers and keep their zeros: ours as block masks, those of NNI's pruners as plain zeros."""
    for module in list(model.modules()):
        wrapper = getattr(module, "_nni_wrapper", None)
        if isinstance(wrapper, BlockMaskWrapper):
            wrapper.unwrap()
        elif isinstance(wrapper, ModuleWrapper) and wrapper.pruning_target_spaces:
            masks = {name: space.mask for name, space in wrapper.pruning_target_spaces.items()
                     if isinstance(space.target, nn.Parameter) and space.mask is not None}
            _take_off(wrapper, wrapper.unwrap)
            with torch.no_grad():
                for name, mask in masks.items():
                    getattr(module, name).mul_(mask)


def _take_off(wrapper: ModuleWrapper, unwrap: Any) -> None:
    """NNI's unwrap, without what it leaves behind: an instance's own `forward` and `weight` listed after `bias`.

    NNI gives the layer copies of its parameters; here it gets those back that were trained, which optimizers have.
    """
    module = wrapper.module
    trained = {name: space.target for name, space in wrapper.pruning_target_spaces.items()
               if isinstance(space.target, nn.Parameter)}
    unwrap()
    for name, parameter in trained.items():
        module._parameters[name] = parameter
    if getattr(module.forward, "__func__", None) is type(module).forward:
        module.__dict__.pop("forward", None)
    put_weight_first(module)


unwrap_hooks.append(take_wrappers_off)
