"""Feature maps that the pruned network should share with the dense one, beside the outputs.

A few hundred images show a few hundred classes: outputs alone would teach the network those, and let it forget the
others. What a residual block passes on is common to all of them (FitNets, Romero et al. 2015; on few samples, Wang et
al., Practical Network Compression from a Few Samples, 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from onexn_plugins.repair.lockstep import Listener
from onexn_plugins.repair.surroundings import Surroundings


def passed_on(around: Mapping[str, Surroundings]) -> frozenset[int]:
    """Numbers of the calls whose results are compared.

    What layers give that nothing clips, so the sums and bottlenecks between residual blocks; where there are none, what
    every layer gives; and always the last map.
    """
    every = [each.end for each in around.values()]
    unclipped = [each.end for each in around.values() if each.bounds is None]
    return frozenset((unclipped or every) + every[-1:])


class Watched(Listener):
    """Keeps the results of these calls while a forward runs, and computes its depthwise convolutions for training.

    On processors that multiply bfloat16 the gradients of a depthwise convolution take four times as long in it as in
    float32, in which they are computed here; everything else stays as the surrounding autocast has it.
    """

    def __init__(self, numbers: frozenset[int]) -> None:
        super().__init__({}, numbers)

    def apply(self, function: Callable[..., Tensor], number: int, arguments: Sequence[Any],
              options: Mapping[str, Any]) -> Tensor:
        tensors = [each for each in (*arguments, *options.values()) if isinstance(each, Tensor)]
        slow = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu") and function is torch.conv2d
        if not slow or tensors[1].shape[1] > 1:
            return function(*arguments, **options)
        with torch.autocast("cpu", enabled=False):
            result = function(*(_float(each) for each in arguments),
                              **{key: _float(each) for key, each in options.items()})
        return result.to(torch.get_autocast_dtype("cpu"))


def difference(dense: Mapping[int, Tensor], other: Mapping[int, Tensor]) -> Tensor:
    """Mean squared error of the maps, each relative to the variance of the dense one, with gradients to `other`.

    Channels that `other` no longer has are the dense one's last.
    """
    errors = []
    for number, there in other.items():
        target = dense[number]
        for dim, size in enumerate(there.shape):
            target = target.narrow(dim, 0, size)
        target = target.float()
        errors.append((there.float() - target).square().mean() / target.var().clamp_min(1e-12))
    return torch.stack(errors).mean()


def _float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value
