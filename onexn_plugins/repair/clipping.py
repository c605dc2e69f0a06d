"""What a ReLU behind a layer forgives: where it clips, any output beyond its bound is as good as the dense one.

The error behind the activation, |clip(Wx) − clip(y)|², is the least of |Wx − u|² over all u that clip to the same as y.
So targets and weights are found in turns: the u nearest to what the layer gives, then least squares, neither of which
raises the error (the idea of fitting behind the nonlinearity: Zhang et al., CVPR 2015).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from onexn_plugins.repair.offsets import norm_scale
from onexn_plugins.repair.surroundings import Surroundings


def clipping(around: Surroundings, mean: Tensor | None, shape: Sequence[int]) -> tuple[Tensor, Tensor] | None:
    """(low, high) of a layer's own outputs, float64 [groups, 1, out / groups]; None where nothing clips them.

    Args:
        around: what stands behind the layer.
        mean: what the dense network's norm behind it subtracts.
        shape: groups, out / groups.
    """
    if around.bounds is None:
        return None
    low, high = (torch.full((math.prod(shape),), each, dtype=torch.float64) for each in around.bounds)
    if around.norm is not None:
        if mean is None:
            return None
        scale, own = norm_scale(around, len(low)), around.norm.bias
        bias = torch.zeros_like(low) if own is None else own.detach().double().cpu()
        turned = scale < 0
        low, high = torch.where(turned, high, low), torch.where(turned, low, high)
        low, high = ((each - bias) / scale + mean[: len(low)].double().cpu() for each in (low, high))
        low, high = low.masked_fill(scale == 0, -math.inf), high.masked_fill(scale == 0, math.inf)
    return low.reshape(shape[0], 1, -1), high.reshape(shape[0], 1, -1)


def given(weight: Tensor, shift: Tensor, inputs: Tensor) -> Tensor:
    """What a weight [out, in / groups, *kernel] and a shift [out] give on samples [groups, n, d]."""
    rows = weight.detach().flatten(1).unflatten(0, (len(inputs), -1)).to(inputs)
    return inputs @ rows.mT + shift.reshape(len(inputs), 1, -1).to(inputs)


def unclipped(targets: Tensor, now: Tensor, limits: tuple[Tensor, Tensor]) -> Tensor:
    """The targets [groups, n, out / groups], but where they are clipped what is nearest to `now` and clipped alike."""
    low, high = (each.to(targets) for each in limits)
    beyond = torch.where(targets > high, torch.maximum(now, high), targets)
    return torch.where(targets < low, torch.minimum(now, low), beyond)
