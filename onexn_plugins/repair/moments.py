"""Second moments of what a layer reads, and of that with what it should give.

A convolution is a linear layer over patches: `samples` makes both the same, [groups, samples, in / groups × taps].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from onexn_plugins.errors import OneXNError
from onexn_plugins.repair.lockstep import Call

# Positions of feature maps that are looked at in all images together: more do not change a layer's moments.
SAMPLES = 50_000
TRANSPOSED = (torch.conv_transpose1d, torch.conv_transpose2d)
LEAST_SAMPLES, PER_INPUT = 10_000, 40  # narrow layers are content with fewer


class Moments:
    """Sums over samples, in float64 on the CPU; the products themselves in the dtype and on the device of the samples.

    Attributes:
        count: samples.
        inputs: [groups, d, d]; cross: [groups, out / groups, d]; input_sums, target_sums, target_squares: one rank
            lower.
    """

    def __init__(self, groups: int, inputs: int, outputs: int = 0) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(groups, *shape, dtype=torch.float64)

        self.count = 0
        self.inputs, self.input_sums = zeros(inputs, inputs), zeros(inputs)
        self.cross, self.target_sums, self.target_squares = zeros(outputs, inputs), zeros(outputs), zeros(outputs)

    def add(self, inputs: Tensor, targets: Tensor | None = None) -> None:
        """Take samples [groups, n, d] with their targets [groups, n, out / groups]."""
        self.count += inputs.shape[1]
        self.inputs += (inputs.mT @ inputs).to(self.inputs)
        self.input_sums += inputs.sum(1).to(self.inputs)
        if targets is not None:
            self.add_targets(inputs, targets)

    def add_targets(self, inputs: Tensor, targets: Tensor) -> None:
        """Take targets [groups, n, out / groups] of samples [groups, n, d] that are there already."""
        self.cross += (targets.mT @ inputs).to(self.cross)
        self.target_sums += targets.sum(1).to(self.cross)
        self.target_squares += targets.square().sum(1).to(self.cross)

    @classmethod
    def total(cls, parts: Sequence[Moments]) -> Moments:
        """Of the samples of all parts."""
        return reduce(Moments.plus, parts)

    def plus(self, other: Moments, sign: int = 1) -> Moments:
        """Of these samples and others; of these without others among them if sign is -1."""
        groups, inputs = self.input_sums.shape
        result = Moments(groups, inputs, self.cross.shape[1])
        result.count = self.count + sign * other.count
        for name in ("inputs", "input_sums", "cross", "target_sums", "target_squares"):
            setattr(result, name, torch.add(getattr(self, name), getattr(other, name), alpha=sign))
        return result

    def of_outputs(self, channels: Tensor) -> Moments:
        """The same samples with some of the targets, of a layer without groups."""
        groups, inputs = self.input_sums.shape
        result = Moments(groups, inputs, 0)
        result.count, result.inputs, result.input_sums = self.count, self.inputs, self.input_sums
        for name in ("cross", "target_sums", "target_squares"):
            setattr(result, name, getattr(self, name)[:, channels])
        return result

    def untaught(self) -> Moments:
        """Of the same samples, for other targets."""
        groups, inputs = self.input_sums.shape
        other = Moments(groups, inputs, self.cross.shape[1])
        other.count, other.inputs, other.input_sums = self.count, self.inputs, self.input_sums
        return other

    def statistics(self, centred: bool = True) -> Statistics:
        """Per sample; about the means where the layer has an offset to take them up."""
        mean, target_mean = self.input_sums / self.count, self.target_sums / self.count
        if not centred:
            mean, target_mean = torch.zeros_like(mean), torch.zeros_like(target_mean)
        return Statistics(
            self.inputs / self.count - mean[:, :, None] * mean[:, None],
            self.cross / self.count - target_mean[:, :, None] * mean[:, None],
            mean, target_mean, self.target_squares / self.count - target_mean.square(),
        )


@dataclass(frozen=True)
class Statistics:
    """Moments per sample, float64.

    Attributes:
        inputs: covariance of the inputs [groups, d, d].
        cross: of targets with inputs [groups, out / groups, d].
        mean: of the inputs [groups, d].
        target_mean, target_variance: of the targets [groups, out / groups].
    """

    inputs: Tensor
    cross: Tensor
    mean: Tensor
    target_mean: Tensor
    target_variance: Tensor


def step_of(outputs: Sequence[int], images: int, inputs: int) -> int:
    """Which share of a feature map's positions is looked at: every step-th in each direction.

    Args:
        outputs: size of the layer's feature map, without batch and channels; () where every image is one sample.
        images: in all.
        inputs: values that each output reads.
    """
    step, wanted = 1, min(SAMPLES, max(LEAST_SAMPLES, PER_INPUT * inputs))
    while outputs and images * _positions(outputs, step + 1) >= wanted:
        step += 1
    return step


def outputs(call: Call, values: Tensor, step: int, dtype: torch.dtype) -> Tensor:
    """What the layer gives, or something of the same shape, where `samples` looks: [groups, samples, out / groups]."""
    if call.function is F.linear:
        return values.reshape(1, -1, values.shape[-1])[:, ::step].to(dtype)
    step = _seeing_all_phases(call, step)
    picked = values[(slice(None), slice(None), *(slice(None, None, step) for _ in values.shape[2:]))].to(dtype)
    return _rows(picked.unflatten(1, (groups_of(call), -1)).flatten(3))


def groups_of(call: Call) -> int:
    """Conv groups; 1 for Linear."""
    return int(call.options.get("groups", 1))


def samples(call: Call, weight: Tensor, step: int = 1, layer: str = "layer") -> Tensor:
    """What every looked-at output reads: [groups, samples, in / groups × taps], taps last, in the order of the weight.

    A transposed convolution is one of stride 1 over its input with zeros in between, and with its taps in reverse.

    Args:
        call: of the layer.
        weight: as the layer stores it; its kernel's size and dtype count.
        step: which positions are looked at, see `step_of`.
        layer: its name.

    Raises:
        OneXNError: it holds NaN or infinity.
    """
    inputs = call.inputs.to(weight.dtype)
    # Whatever is not finite makes the sum so too, and a sum is several times as fast as looking at each value.
    if not bool(torch.isfinite(inputs.sum())) and not bool(torch.isfinite(inputs).all()):
        raise OneXNError(layer, "NaN or infinite values arrive here on the images given",
                         "Check the images' preprocessing and the model's weights")
    if call.function is F.linear:
        return inputs.reshape(1, -1, inputs.shape[-1])[:, ::step]
    groups = groups_of(call)
    kernel = weight.shape[2:]
    stride, dilation = (_each(call.options.get(key, 1), len(kernel)) for key in ("stride", "dilation"))
    transposed = call.function in TRANSPOSED
    if transposed:
        inputs, stride = _spread(call, inputs, kernel, stride, dilation), (1,) * len(kernel)
        step = _seeing_all_phases(call, step)
    else:
        inputs = F.pad(inputs, _padding(call.options.get("padding", 0), kernel, dilation))
    if kernel.numel() == 1:
        picked = inputs[(slice(None), slice(None), *(slice(None, None, each * step) for each in stride))]
        return _rows(picked.unflatten(1, (groups, -1)).flatten(3))
    if len(kernel) == 1:  # unfold knows maps alone
        inputs, kernel, dilation, stride = inputs[:, :, None], torch.Size((1, *kernel)), (1, *dilation), (1, *stride)
    patches = F.unfold(inputs, tuple(kernel), dilation, 0, tuple(each * step for each in stride))
    if transposed:
        patches = patches.unflatten(1, (-1, kernel.numel())).flip(2).flatten(1, 2)
    return _rows(patches.unflatten(1, (groups, -1)))


def _spread(call: Call, inputs: Tensor, kernel: Sequence[int], stride: Sequence[int],
            dilation: Sequence[int]) -> Tensor:
    """A transposed convolution's input with zeros between its positions, as far as its outputs read."""
    dims = len(kernel)
    sides: list[int] = []
    spread = inputs.new_zeros(*inputs.shape[:2], *((size - 1) * each + 1 for size, each in
                                                   zip(inputs.shape[2:], stride, strict=True)))
    spread[(slice(None), slice(None), *(slice(None, None, each) for each in stride))] = inputs
    padding, more = (_each(call.options.get(key, 0), dims) for key in ("padding", "output_padding"))
    for dim in reversed(range(dims)):
        reach = dilation[dim] * (kernel[dim] - 1) - padding[dim]
        sides += [reach, reach + more[dim]]
    return F.pad(spread, sides)


def _seeing_all_phases(call: Call, step: int) -> int:
    """The step, or the next one, that meets outputs of every phase: each is computed by other taps."""
    strides = _each(call.options.get("stride", 1), 2) if call.function in TRANSPOSED else ()
    while any(math.gcd(step, stride) > 1 for stride in strides):
        step += 1
    return step


def _rows(values: Tensor) -> Tensor:
    """[n, groups, d, positions] -> [groups, n × positions, d]"""
    return values.permute(1, 0, 3, 2).flatten(1, 2)


def _positions(outputs: Sequence[int], step: int) -> int:
    count = 1
    for size in outputs:
        count *= size // step
    return count


def _each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    given = (value,) if isinstance(value, int) else tuple(value)
    return given if len(given) == dims else given * dims


def _padding(padding: int | str | Sequence[int], kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """As F.pad takes it: last dimension first, both sides."""
    sides = []
    for place in reversed(range(len(kernel))):
        if padding == "same":
            whole = dilation[place] * (kernel[place] - 1)
            sides += [whole // 2, whole - whole // 2]
        else:
            side = 0 if isinstance(padding, str) else _each(padding, len(kernel))[place]
            sides += [side, side]
    return sides
