"""What a kernel is asked to compute, and for which vector unit: the seam between kernels and the rest of the backend.

Everything is float32. Images are NCHW. Nothing here knows ONNX, Relax or how a kernel works inside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

ACTIVATIONS = ("relu", "relu6", "hardswish", "hardsigmoid", "silu", "sigmoid", "gelu")
# Kernels index their buffers with int32.
MAX_ELEMENTS = 2**31 - 1
# What a kernel's vectors run over: pixels of an image, channels of a block, rows (or images) of a linear layer.
Vectors = Literal["pixels", "channels", "rows"]


class Unsupported(Exception):
    """No kernel of this family fits the problem; the caller lowers the operator the ordinary way.

    Attributes:
        reason: why, in words a report can show.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Conv:
    """A 2-d convolution. Pairs are (vertical, horizontal); padding is (top, left, bottom, right) zeros."""

    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def out_height(self) -> int:
        top, _, bottom, _ = self.padding
        return _out_size(self.height + top + bottom, self.kernel[0], self.stride[0], self.dilation[0])

    @property
    def out_width(self) -> int:
        _, left, _, right = self.padding
        return _out_size(self.width + left + right, self.kernel[1], self.stride[1], self.dilation[1])

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.batch, self.in_channels, self.height, self.width

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.batch, self.out_channels, self.out_height, self.out_width

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return self.out_channels, self.in_channels // self.groups, *self.kernel

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def is_pointwise(self) -> bool:
        """1×1, stride 1, no padding: output pixels are input pixels."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0, 0, 0)

    @property
    def is_depthwise(self) -> bool:
        return self.groups == self.in_channels == self.out_channels


@dataclass(frozen=True)
class Conv3d(Conv):
    """A 3-d convolution: what Conv says of the frames, and a window that moves over them.

    Attributes:
        depth: frames of an image.
        frames: of the kernel.
        frame_stride, frame_dilation: in frames.
        frame_padding: frames of zeros (before, after).
    """

    depth: int = 1
    frames: int = 1
    frame_stride: int = 1
    frame_padding: tuple[int, int] = (0, 0)
    frame_dilation: int = 1

    @property
    def out_depth(self) -> int:
        return _out_size(self.depth + sum(self.frame_padding), self.frames, self.frame_stride, self.frame_dilation)

    @property
    def frame(self) -> Conv:
        """The convolution of a frame by the kernel of one."""
        return Conv(*(getattr(self, field.name) for field in fields(Conv)))

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.batch, self.in_channels, self.depth, self.height, self.width

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.batch, self.out_channels, self.out_depth, self.out_height, self.out_width

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return self.out_channels, self.in_channels // self.groups, self.frames, *self.kernel

    @property
    def taps(self) -> int:
        return self.frames * super().taps

    @property
    def is_pointwise(self) -> bool:
        """Never: what has no window is a 2-d convolution."""
        return False


@dataclass(frozen=True)
class Linear:
    """rows x in_features times the transposed weight [out_features, in_features]."""

    batch: int
    in_features: int
    out_features: int

    @property
    def input_shape(self) -> tuple[int, int]:
        return self.batch, self.in_features

    @property
    def output_shape(self) -> tuple[int, int]:
        return self.batch, self.out_features

    @property
    def weight_shape(self) -> tuple[int, int]:
        return self.out_features, self.in_features


@dataclass(frozen=True)
class Transposed(Conv):
    """A transposed 2-d convolution: under tap t pixel i adds to the output at i * stride + t * dilation - padding.

    Its weight is [out, in / groups, *kernel], as that of other convolutions.

    Attributes:
        size: rows and columns of the output; those that no pixel reaches hold the bias.
        axes: of an image; with one, images are [batch, channels, width], and the height is 1.
    """

    size: tuple[int, int] = (1, 1)
    axes: int = 2

    @property
    def out_height(self) -> int:
        return self.size[0]

    @property
    def out_width(self) -> int:
        return self.size[1]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.batch, self.in_channels, *(self.height, self.width)[-self.axes:])

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.batch, self.out_channels, *self.size[-self.axes:])

    @property
    def is_pointwise(self) -> bool:
        """Never: output pixels lie elsewhere."""
        return False


def as_linear(problem: Any) -> Linear | None:
    """The linear layer that computes the same; a convolution is one on a single pixel."""
    if isinstance(problem, Linear):
        return problem
    if isinstance(problem, Conv) and problem.is_pointwise and problem.height * problem.width == problem.groups == 1:
        return Linear(problem.batch, problem.in_channels, problem.out_channels)
    return None


@dataclass(frozen=True)
class Pool:
    """Max or average pooling. Padding may be enlarged by the caller for ceil_mode.

    Attributes:
        kind: "max" or "average".
        count_include_pad: average only: padding counts as zeros in the divisor, else it does not count.
        beyond: rows and columns that padding was enlarged by: they count in no case.
    """

    kind: str
    batch: int
    channels: int
    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    count_include_pad: bool = False
    beyond: tuple[int, int] = (0, 0)

    @property
    def as_conv(self) -> Conv:
        """The depthwise convolution that walks over the same windows."""
        return Conv(self.batch, self.channels, self.height, self.width, self.channels, self.kernel, self.stride,
                    self.padding, self.dilation, self.channels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.as_conv.input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.as_conv.output_shape


@dataclass(frozen=True)
class GlobalPool:
    """The mean over all pixels of a channel: [batch, channels, height, width] to [batch, channels, 1, 1]."""

    batch: int
    channels: int
    height: int
    width: int

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.channels, self.height, self.width

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.channels, 1, 1


@dataclass(frozen=True)
class Epilogue:
    """What follows the sum: + bias (always), + residual (a tensor of the output's shape), then the activation.

    `in_place`: nothing else reads the residual, so that the output may be written over it.
    """

    residual: bool = False
    activation: str | None = None
    in_place: bool = False

    def __post_init__(self) -> None:
        if self.activation is not None and self.activation not in ACTIVATIONS:
            raise Unsupported(f"activation {self.activation!r} is not one of {', '.join(ACTIVATIONS)}")


@dataclass(frozen=True)
class Tile:
    """How many sums are kept in registers: block_size output channels × `vectors` registers of pixels."""

    block_size: int
    vectors: int


@dataclass(frozen=True)
class Choice:
    """How a layer's blocks are computed.

    Attributes:
        sparse: zero blocks are skipped.
        tile: block size and vectors.
    """

    sparse: bool
    tile: Tile

    def __str__(self) -> str:
        return f"{'sparse' if self.sparse else 'dense'} {self.tile.block_size}x{self.tile.vectors}"


@dataclass(frozen=True)
class Kernel:
    """A compiled-to-be kernel.

    Attributes:
        func: a tirx PrimFunc whose buffers are, in order: x [input_shape], the constants (each 1-D), further
            activations, the residual [output_shape] where the epilogue has one, y [output_shape]; not y where the
            kernel works in place.
        constants: values, indices, row pointers, bias ...
        method: the algorithm in words, for reports; empty where sums are computed as they are defined.
        in_place: y is written over the residual.
    """

    func: Any
    constants: tuple[np.ndarray, ...]
    method: str = ""
    in_place: bool = False

    @property
    def family(self) -> str:
        """What computes it: "conv_1x1", "winograd_3x3", "linear" ..."""
        return str(self.func.attrs["global_symbol"])


def why_not_indexed(shape: tuple[int, ...]) -> str | None:
    """None for a tensor that holds something and that int32 offsets reach all of."""
    if min(shape) < 1:
        return f"a tensor of shape {tuple(shape)} holds nothing"
    if math.prod(shape) > MAX_ELEMENTS:
        return f"a tensor of shape {tuple(shape)} is larger than int32 offsets reach"
    return None


def _out_size(padded: int, kernel: int, stride: int, dilation: int) -> int:
    return (padded - dilation * (kernel - 1) - 1) // stride + 1
