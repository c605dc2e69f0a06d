"""NNI's ModelSpeedup told what 1×N masks are.

It cuts whole filters. Given the masks of 1×N blocks it cuts nothing, or fails in its tracer with an error that says
nothing of the reason, in every tutorial that ends with it. Importing it changes torch's own tables, so it is not
imported for this, but changed as soon as somebody else does.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import out_first, weighted_layers
from onexn_plugins.masking import masks as block_masks
from onexn_plugins.pattern import detect_block_size

_MODULE = "nni.compression.speedup.model_speedup"


def guard_model_speedup() -> None:
    """Let ModelSpeedup refuse models and masks in 1×N blocks, now or when it is imported."""
    if _MODULE in sys.modules:
        _guard(sys.modules[_MODULE])
    elif not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())


class _WhenImported(importlib.abc.MetaPathFinder):
    """Finds nothing itself: the module's own loader gets a step more."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None,
                  ) -> importlib.machinery.ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_guard(module: ModuleType) -> None:
                load(module)
                _guard(module)

            spec.loader.exec_module = load_and_guard  # type: ignore[method-assign]
        return spec


def _guard(module: ModuleType) -> None:
    speedup: Any = module.ModelSpeedup  # type: ignore[attr-defined]
    original = speedup.__init__
    if getattr(original, "onexn_guarded", False):
        return

    @functools.wraps(original)
    def checked(self: Any, model: Any, dummy_input: Any, masks_or_file: Any, *rest: Any, **options: Any) -> None:
        layer = _masked_in_blocks(model, masks_or_file)
        if layer is not None:
            raise OneXNError(layer, "is pruned in 1×N blocks, and ModelSpeedup cuts whole filters",
                             "Call onexn_plugins.fold(model), then export_onnx and tvm_backend.compile_model; "
                             "or all in one, onexn_plugins.nni.finish(pruner, example_inputs)")
        original(self, model, dummy_input, masks_or_file, *rest, **options)

    checked.onexn_guarded = True  # type: ignore[attr-defined]
    speedup.__init__ = checked


def _masked_in_blocks(model: Any, masks: Any) -> str | None:
    """A layer with a block mask on it, or whose mask among these is made of blocks."""
    if isinstance(model, nn.Module) and block_masks(model):
        return next(iter(block_masks(model)))
    layers = weighted_layers(model) if isinstance(model, nn.Module) else {}
    for name, targets in masks.items() if isinstance(masks, Mapping) else ():
        mask = targets.get("weight") if isinstance(targets, Mapping) else None
        if isinstance(mask, Tensor) and name in layers and mask.shape == layers[name].weight.shape:
            mask = out_first(layers[name], mask)
        if isinstance(mask, Tensor) and mask.dim() >= 2 and _of_kernels(mask):
            return str(name)
    return None


def _of_kernels(mask: Tensor) -> bool:
    """It is made of blocks of several filters' kernels, and not of whole filters or whole input channels."""
    kept = (mask.flatten(2) != 0).any(2) if mask.dim() > 2 else mask != 0
    whole = torch.equal(kept, kept.any(1, keepdim=True) & kept.any(0, keepdim=True))
    return not whole and (detect_block_size(kept[..., None, None].float(), 1) or 1) > 1
