"""The mask as a parametrization on `weight`: attach, update, read, fold.

A parametrization keeps pruned weights at zero whatever the optimizer does (momentum, weight decay) and leaves the
original class, so that removing it gives back the module as it was, with the zeros in its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from onexn_plugins.errors import OneXNError
from onexn_plugins.guards import guard_masked_models
from onexn_plugins.layers import PrunableLayer, is_transposed, out_first, pattern_of
from onexn_plugins.pattern import BlockPattern, weight_mask

_SHAPE = ("in_channels", "out_channels", "in_features", "out_features", "groups")

# What fold() calls before anything else, so that a toolkit can take its own wrappers off. Filled by the adapters.
unwrap_hooks: list[Callable[[nn.Module], None]] = []


class BlockMask(nn.Module):
    """weight -> weight with the pruned blocks at zero.

    Attributes:
        pattern: how the weight is cut into blocks.
        keep: bool [block_rows, in / groups], the blocks that stay; a buffer, so it is saved and moved with the model.
        straight_through: the forward pass sees zeros, but gradients reach the pruned weights too, so that their
            blocks can come back (straight-through estimator, Bengio et al. 2013).
        transposed: the weight is that of a transposed convolution, [in, out / groups, *kernel].
    """

    keep: Tensor
    mask: Tensor

    def __init__(self, pattern: BlockPattern, keep: Tensor, weight: Tensor, straight_through: bool = False,
                 transposed: bool = False) -> None:
        super().__init__()
        self.pattern = pattern
        self.straight_through, self.transposed = straight_through, transposed
        self.register_buffer("keep", keep.to(weight.device))
        self.register_buffer("mask", weight_mask(self.keep, pattern, weight, transposed), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        guard_masked_models()
        masked = torch.where(self.mask, weight, 0.0)
        return weight + (masked - weight).detach() if self.straight_through else masked

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight

    def update(self, keep: Tensor) -> None:
        """Take another set of kept blocks; the weights behind them are untouched."""
        self.keep.copy_(keep)
        self.mask.copy_(weight_mask(self.keep, self.pattern, self.mask, self.transposed))

    def _load_from_state_dict(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super()._load_from_state_dict(*args, **kwargs)
        self.update(self.keep.clone())


def mask_of(layer: nn.Module) -> BlockMask | None:
    """The block mask on the layer's weight, or None."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    stack = layer.parametrizations["weight"]  # type: ignore[index]
    return next((step for step in stack if isinstance(step, BlockMask)), None)


def dense_weight(layer: nn.Module) -> Tensor:
    """The layer's weight without the block mask: what gradual pruning ranks."""
    if mask_of(layer) is None:
        return layer.weight  # type: ignore[return-value]
    return layer.parametrizations["weight"].original  # type: ignore[index,return-value,union-attr]


def dense_filters(layer: PrunableLayer) -> Tensor:
    """`dense_weight` as [out, in / groups, *kernel], the form that blocks are cut from."""
    return out_first(layer, dense_weight(layer))


def check_attachable(layer: PrunableLayer, block_size: int, name: str = "layer") -> BlockPattern:
    """The pattern a mask on the layer would have.

    Raises:
        OneXNError: block_size does not fit the layer, the layer carries a mask of another block size or a foreign
            parametrization of its weight, or its weight is no parameter of its own.
    """
    mask = mask_of(layer)
    if mask is None and parametrize.is_parametrized(layer, "weight"):
        raise OneXNError(name, "its weight is parametrized by something else",
                         "Remove it first with torch.nn.utils.parametrize.remove_parametrizations")
    if mask is None and not isinstance(layer._parameters.get("weight"), nn.Parameter):
        raise OneXNError(name, "its weight is no plain parameter (old-style weight_norm or torch.nn.utils.prune)",
                         "Make it one first, with remove_weight_norm or torch.nn.utils.prune.remove")
    pattern = pattern_of(layer, block_size, name)
    if mask is not None and mask.pattern != pattern:
        raise OneXNError(name, f"it already carries 1×{mask.pattern.block_size} blocks",
                         "Call fold(model) before pruning with another block_size")
    return pattern


def attach(
    layer: PrunableLayer, keep: Tensor, block_size: int, name: str = "layer", *, straight_through: bool = False
) -> BlockMask:
    """Mask the layer to the kept blocks, bool [block_rows, in / groups]; an existing mask is updated in place.

    Raises:
        OneXNError: the layer cannot take the mask (`check_attachable`), or keep has the wrong shape.
    """
    pattern = check_attachable(layer, block_size, name)
    if tuple(keep.shape) != pattern.shape or keep.dtype != torch.bool:
        raise OneXNError(name, f"the kept blocks are {keep.dtype} {tuple(keep.shape)}, not bool {pattern.shape}",
                         "Score and mask the layer with the same block_size")
    guard_masked_models()
    mask = mask_of(layer)
    if mask is None:
        mask = BlockMask(pattern, keep, layer.weight, straight_through, is_transposed(layer))
        with _same_tensor(layer._parameters["weight"]):
            parametrize.register_parametrization(layer, "weight", mask)
        type(layer).__setattr__ = _keep_shape  # type: ignore[assignment]
        type(layer).__reduce_ex__ = _reduce_masked  # type: ignore[assignment]
    else:
        mask.update(keep.to(mask.keep.device))
        mask.straight_through = straight_through
    return mask


def _keep_shape(self: nn.Module, name: str, value: Any) -> None:
    """__setattr__ of a masked layer, whose class is its own: a structural pruner would cut channels through blocks."""
    resized = name in _SHAPE and getattr(self, name, None) != value
    if (resized or (name == "weight" and isinstance(value, nn.Parameter))) and mask_of(self) is not None:
        raise OneXNError(name, "a layer with a 1×N mask keeps its shape and cannot take another weight",
                         "Prune channels first and 1×N blocks last, or call fold(model) before changing the layer")
    nn.Module.__setattr__(self, name, value)


def _reduce_masked(self: nn.Module, protocol: Any) -> Any:
    """How pickle, and so torch.save(model), takes a masked layer: its own class is made at run time and has no name."""
    mask, names = mask_of(self), list(getattr(self, "parametrizations", ()))
    if mask is None or names != ["weight"] or len(self.parametrizations["weight"]) > 1:  # type: ignore[index,arg-type]
        return nn.Module.__reduce_ex__(self, protocol)
    state = {**vars(self), "_parameters": {"weight": dense_weight(self), **self._parameters},
             "_modules": {name: module for name, module in self._modules.items() if name != "parametrizations"}}
    plain = type(self).__bases__[0]
    return _restore_masked, (plain, state, mask.keep, mask.pattern.block_size, mask.straight_through)


def _restore_masked(plain: type[nn.Module], state: dict[str, Any], keep: Tensor, block_size: int,
                    straight_through: bool) -> nn.Module:
    layer = plain.__new__(plain)
    layer.__setstate__(state)
    attach(layer, keep, block_size, straight_through=straight_through)  # type: ignore[arg-type]
    return layer


def masks(model: nn.Module) -> dict[str, BlockMask]:
    """Every block mask of the model by the name of its layer."""
    found = {name: mask_of(module) for name, module in model.named_modules() if hasattr(module, "parametrizations")}
    return {name: mask for name, mask in found.items() if mask is not None}


def fold(model: nn.Module) -> nn.Module:
    """Make masks plain zeros, in place: parametrizations and toolkit wrappers go, classes and names are as before.

    Returns:
        The same model. A second call changes nothing.
    """
    for unwrap in unwrap_hooks:
        unwrap(model)
    modules = dict(model.named_modules())
    for name in masks(model):
        _remove(modules[name], zeros=True)
    return model


def detach(layer: nn.Module) -> None:
    """Take the block mask off again: the layer has its dense weight back, pruned weights included."""
    _remove(layer, zeros=False)


def put_weight_first(layer: nn.Module) -> None:
    """Replacing `weight` moved it behind `bias`; put it back, so that state_dict() lists the keys as before."""
    parameters = layer._parameters
    for name in [name for name in parameters if name != "weight"]:
        parameters[name] = parameters.pop(name)


def _remove(layer: nn.Module, *, zeros: bool) -> None:
    _own_class(layer)
    with _same_tensor(dense_weight(layer)):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=zeros)
    put_weight_first(layer)


@contextmanager
def _same_tensor(weight: Tensor | None) -> Iterator[None]:
    """torch's parametrize calls weight.set_(), even with itself; meanwhile that copies values instead.

    set_() gives the tensor another gradient accumulator. Whoever listens to the old one, as DistributedDataParallel
    does from the moment it wraps a model, would never hear of a gradient again.
    """
    assert weight is not None
    weight.set_ = weight.copy_  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        del weight.set_


def _own_class(layer: nn.Module) -> None:
    """Give a parametrized layer a class of its own: a deepcopy shares it, and removing a parametrization edits it."""
    shared = type(layer)
    members = {key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")}
    layer.__class__ = type(shared.__name__, shared.__bases__, members)
