"""What a model must be like for its channels to be moved; checked before anything is changed."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import masks
from onexn_plugins.rearrangement.spaces import named_tensors


def check_model(model: object) -> None:
    """Raise OneXNError unless the model is an unmasked, unwrapped eager torch module with real weights."""
    if not isinstance(model, nn.Module):
        raise OneXNError("model", f"must be a torch module, got {type(model).__name__}", "Pass the model itself")
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
