"""What a model must be like for its channels to be moved; checked before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import PrunableLayer, out_first
from onexn_plugins.masking import masks
from onexn_plugins.plain_modules import check_plain
from onexn_plugins.rearrangement.search import METHODS
from onexn_plugins.rearrangement.spaces import Space, named_tensors


def check_options(method: object, seed: object, full: object, spaces: object, progress: object) -> None:
    """Raise OneXNError unless the options of `rearrange` are of their kinds."""
    if not isinstance(method, str) or method not in METHODS:
        raise OneXNError("method", f"must be one of {', '.join(METHODS)}, got {method!r}",
                         "Leave it out for the search")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise OneXNError("seed", f"must be an integer from 0 on, got {seed!r}", "Leave it out for 0")
    if full is not None and not isinstance(full, bool):
        raise OneXNError("full", f"must be True, False or None, got {full!r}", "Leave it out for the default")
    if spaces is not None and not (isinstance(spaces, Sequence) and all(isinstance(each, Space) for each in spaces)):
        raise OneXNError("spaces", f"must be a list of Space, got {type(spaces).__name__}", "Leave it out for our own")
    if progress is not None and not callable(progress):
        raise OneXNError("progress", f"must be callable, got {progress!r}", "Pass a function (done, total, what)")


def check_saliency(saliency: object, layers: Mapping[str, PrunableLayer]) -> None:
    """Raise OneXNError unless there is a finite, non-negative number for every kernel of these layers; None is fine."""
    if saliency is None:
        return
    if not isinstance(saliency, Mapping):
        raise OneXNError("saliency", f"must map layers to tensors, got {type(saliency).__name__}",
                         "Leave it out for the L1 norm")
    for name, layer in layers.items():
        value, shape = saliency.get(name), tuple(out_first(layer, layer.weight).shape[:2])
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise OneXNError(name, f"its saliency must be a tensor {shape}, got {found}",
                             "Give one number for every kernel")
        if not bool((torch.isfinite(value) & (value >= 0)).all()):
            raise OneXNError(name, "its saliency holds negative, NaN or infinite values", "Give magnitudes")


def check_model(model: object) -> None:
    """Raise OneXNError unless the model is an unmasked, unwrapped eager torch module with real weights."""
    if not isinstance(model, nn.Module):
        raise OneXNError("model", f"must be a torch module, got {type(model).__name__}", "Pass the model itself")
    check_plain(model)
    masked = sorted(masks(model))
    if masked:
        raise OneXNError(", ".join(masked), "already masked, and moving channels would tear its blocks apart",
                         "Rearrange before pruning, or call fold(model) first")
    for name, module in model.named_modules():
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            raise OneXNError(name or "model", f"it is wrapped in {type(module).__name__}",
                             "Rearrange model.module before wrapping it")
        if parametrize.is_parametrized(module, "weight"):
            raise OneXNError(name, "its weight is parametrized, so moving rows of it has no meaning",
                             "Remove it with torch.nn.utils.parametrize.remove_parametrizations")
    for name, tensor in named_tensors(model).items():
        if is_lazy(tensor) or tensor.is_meta:
            raise OneXNError(name, "has no values yet", "Run the model once, or load its weights")
        if tensor.is_inference():
            raise OneXNError(name, "was made in inference mode and cannot be changed",
                             "Build or load the model outside torch.inference_mode()")
