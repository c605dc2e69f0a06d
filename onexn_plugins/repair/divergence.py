"""How far a network's outputs are from the dense one's, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from onexn_plugins.errors import OneXNError
from onexn_plugins.inputs import tensors_in


@dataclass(frozen=True)
class Divergence:
    """
    Attributes:
        kl: mean Kullback-Leibler divergence of the classes from the dense network's, in nats. Of networks that give no
            [images, classes], their squared error instead, relative to the variance of the dense outputs.
        agreement: share of the images whose first class is the dense network's; None where there are no classes.
    """

    kl: float
    agreement: float | None


def is_classes(output: Any) -> bool:
    """Is it one tensor [images, classes]?"""
    return isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] > 1 and output.is_floating_point()


def divergence(dense: Sequence[Any], other: Sequence[Any]) -> Divergence:
    """Over outputs of the same batches, one entry a batch.

    Raises:
        OneXNError: the dense outputs are not finite, or hold nothing to compare.
    """
    if all(is_classes(output) for output in dense):
        return _of_classes(torch.cat(list(dense)).double(), torch.cat(list(other)).double())
    error = total = 0.0
    for one, two in zip(dense, other, strict=True):
        for before, after in zip(_floating(one), _floating(two), strict=True):
            error += float((before - after).square().sum())
            total += float((before - before.mean()).square().sum())
    if not total > 0 or total == float("inf"):
        raise OneXNError("model", "its outputs hold no finite floating-point values to compare",
                         "Let forward return what it computes before rounding or argmax")
    return Divergence(_number(error / total), None)


def loss(dense: Any, other: Any) -> Tensor:
    """The same for one batch, with gradients to `other`."""
    if is_classes(dense):
        return F.kl_div(other.float().log_softmax(1), dense.float().log_softmax(1), log_target=True,
                        reduction="batchmean")
    return squared(dense, other)


def squared(dense: Any, other: Any) -> Tensor:
    """Squared error of one batch's outputs relative to the variance of the dense ones, with gradients to `other`."""
    pairs = list(zip(_floating(dense), _floating(other), strict=True))
    total = sum(float((before - before.mean()).square().sum()) for before, _ in pairs)
    return torch.stack([(before - after).square().sum() for before, after in pairs]).sum() / max(total, 1e-12)


def _of_classes(dense: Tensor, other: Tensor) -> Divergence:
    if not bool(torch.isfinite(dense).all()):
        raise OneXNError("model", "its outputs are not finite on the images given",
                         "Check the weights and the images' preprocessing")
    kl = F.kl_div(other.log_softmax(1), dense.log_softmax(1), log_target=True, reduction="batchmean")
    return Divergence(_number(float(kl)), float((dense.argmax(1) == other.argmax(1)).double().mean()))


def _number(value: float) -> float:
    return max(value, 0.0) if value == value else float("inf")


def _floating(output: Any) -> list[Tensor]:
    return [tensor.double() for tensor in tensors_in(output) if tensor.is_floating_point()]
