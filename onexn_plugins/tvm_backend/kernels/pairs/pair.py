"""A 1×N convolution and the depthwise convolution after it, one block row at a time: what all ways of it share.

The hidden tensor between them (the widest of an inverted residual, MobileNetV2 section 3.3) never exists: N channels
of it are summed, activated, padded and consumed while they are in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onexn_plugins.tvm_backend.kernels.channelwise.depthwise import depthwise_constants
from onexn_plugins.tvm_backend.kernels.code.activation import activate
from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Expr
from onexn_plugins.tvm_backend.kernels.conv.packed import why_not_packed
from onexn_plugins.tvm_backend.kernels.encode import Encoded
from onexn_plugins.tvm_backend.kernels.pairs.projection import Projection
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, weight_constants
from onexn_plugins.tvm_backend.kernels.parts.sharing import (
    BANDS,
    JOBS,
    ROWS,
    Sharing,
    job_costs,
    row_costs,
    share,
    window_cost,
)
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel, Tile
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# A pair reads its input once for every block row. Where that is so many first caches large, has so many channels (which
# the processor does not fetch ahead) and rows keep so many blocks, storing the hidden channels and reading them again
# takes less time (AVX2, MobileNetV1: by 5 to 44 %, at least 32 kept of 64 channels).
_FAR, _MANY_CHANNELS, _MANY_BLOCKS = 4, 64, 32


def why_not_pair(request: Request) -> str | None:
    """None where the depthwise convolution takes exactly what the convolution gives, and both gain together."""
    first, second = request.stages[:2]
    if second.conv.input_shape != first.conv.output_shape:
        return f"the convolution gives {first.conv.output_shape}, the depthwise one takes {second.conv.input_shape}"
    if first.epilogue.residual:
        return "a residual between the convolution and the depthwise one"
    if not request.unit.measured.pairs_far and why_not_packed(request) is None and _reads_far(request):
        return "every block row would read an input that the first cache does not hold, and that is better copied once"
    return None


def _reads_far(request: Request) -> bool:
    """Whether block rows of many kept blocks read an input far larger than the first cache."""
    blocks, problem = request.first.blocks, request.first.conv
    channels = problem.in_channels // problem.groups
    far = 4 * channels * problem.height * problem.width >= _FAR * request.unit.first_cache
    return far and channels >= _MANY_CHANNELS and blocks.density * channels >= _MANY_BLOCKS


@dataclass(frozen=True, eq=False)
class Pair:
    """A request for a pair as its kernels see it: the depthwise convolution is the second stage."""

    request: Request

    @property
    def unit(self) -> VectorUnit:
        return self.request.unit

    @property
    def problem(self) -> Conv:
        """The convolution."""
        return self.request.first.conv

    @property
    def tile(self) -> Tile:
        return self.request.first.tile

    @property
    def encoded(self) -> Encoded:
        return self.request.first.encoded

    @property
    def depthwise(self) -> Conv:
        return self.request.stages[1].conv

    @property
    def dw_epilogue(self) -> Epilogue:
        """What follows the depthwise convolution's sums."""
        return self.request.stages[1].epilogue

    @cached_property
    def projection(self) -> Projection | None:
        """The 1×1 convolution after both, if there is one."""
        return Projection(self.request.last) if len(self.request.stages) > 2 else None

    @property
    def group_inputs(self) -> int:
        """Input channels of a group of the convolution."""
        return self.problem.in_channels // self.problem.groups

    @property
    def name(self) -> str:
        """What kernels are called that are not of a special way."""
        return f"conv_{self.problem.kernel[0]}x{self.problem.kernel[1]}_depthwise"

    def finish(self, value: Expr, lanes: int) -> Expr:
        """A hidden vector, activated."""
        return activate(value, self.request.first.epilogue.activation, lanes, self.unit)

    def rows(self, buffers: Buffers) -> BlockRows:
        """The convolution's weight inside the kernel."""
        return BlockRows(self.encoded, buffers.constants, self.unit)

    def inputs(self, image: Expr, group: Expr) -> Expr:
        """The first input channel of a group of an image."""
        return image * self.problem.in_channels + group * self.group_inputs

    def sharing(self, bands: tuple[int, int] | None, *, by_rows: bool = True) -> Sharing:
        """How threads share the kernel: images and groups need nothing of each other; block rows read the same input,
        bands about a part of it each.

        Args:
            bands: how many bands threads may take, and the output rows of one; None where they may not.
            by_rows: whether they may take block rows.
        """
        problem, depthwise, encoded = self.problem, self.depthwise, self.encoded
        pixels, rows_per_group = problem.out_height * problem.out_width, encoded.pattern.rows_per_group
        following = window_cost(depthwise) * encoded.block_size  # of each block row
        if self.projection:
            following += self.projection.macs / len(encoded.row_counts)
        rows = (row_costs(encoded, pixels) + following * problem.groups) * problem.batch
        candidates = {JOBS: job_costs(encoded, pixels, problem.batch, following * rows_per_group)}
        if bands is not None:
            count, height = bands
            taken = min(depthwise.height, (height - 1) * depthwise.stride[0] + depthwise.kernel[0])
            share_of_rows = max(height / depthwise.out_height, taken / depthwise.height)
            candidates[BANDS] = np.full(count, rows.sum() * share_of_rows)
        launches = problem.batch * problem.groups * (1 if problem.is_pointwise else 2)
        exchanged = math.prod(problem.input_shape) + math.prod(depthwise.output_shape)
        if by_rows and self.projection is None:  # a projection needs all hidden channels
            candidates[ROWS] = rows
        return share(self.unit.threads, candidates, {ROWS: launches, BANDS: launches}, exchanged)

    def kernel(self, name: str, emit: Callable[[Buffers], None], extra: dict[str, np.ndarray] | None = None,
               encoded: Encoded | None = None) -> Kernel:
        """The kernel of all stages.

        Args:
            name: without a projection.
            emit: writes its body.
            extra: constants besides weights.
            encoded: the convolution's weight, where it is not encoded as it is.
        """
        first, second = self.request.stages[:2]
        constants = weight_constants(encoded or self.encoded, first.bias) | depthwise_constants(second) | (extra or {})
        if self.projection:
            name, constants = f"{name}_projection", constants | self.projection.constants
        last = self.request.last
        return build(name, self.problem.input_shape, last.conv.output_shape, constants, emit, self.unit, last.epilogue)
