"""1×1 convolutions of stride 1: output pixels are input pixels, so a channel is one flat run of height × width."""

from __future__ import annotations

import math

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Expr
from onexn_plugins.tvm_backend.kernels.encode import Encoded
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source, weight_constants
from onexn_plugins.tvm_backend.kernels.parts.sharing import (
    JOBS,
    ROWS,
    TILES,
    Run,
    Sharing,
    each_job,
    job_costs,
    row_costs,
    share,
)
from onexn_plugins.tvm_backend.kernels.parts.sums import each_group, planes, sum_tile
from onexn_plugins.tvm_backend.kernels.parts.tiling import Cut, PixelTile, channels_at_once, cut_pixels, tile_pixels
from onexn_plugins.tvm_backend.kernels.problem import Conv, Kernel
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Share of the second cache that the pixels of a group of tiles take. Longer runs of a channel's outputs are written
# (and residuals read) the faster, shorter ones leave the pixels in the first cache; measured on AVX-512 with
# ResNet-50's layers at 10 to 100 % of the blocks.
GROUP_SHARE = 1 / 4


def why_not_pointwise(request: Request) -> str | None:
    """None for a 1×1 convolution without stride and padding."""
    return None if request.first.conv.is_pointwise else "not 1×1 of stride 1 without padding"


def pointwise(request: Request) -> Kernel:
    """A 1×1 kernel: for each group of tiles all block rows, so that the group's pixels stay in the cache."""
    stage, unit = request.first, request.unit
    problem, encoded = stage.conv, stage.encoded
    pixels = problem.height * problem.width
    group_inputs = problem.in_channels // problem.groups
    cut = cut_pixels(pixels, stage.tile, unit)
    group_size = max(1, int(GROUP_SHARE * unit.second_cache) // (4 * group_inputs * sum(cut.tile.widths)))
    sharing = share_pixels(problem, encoded, cut, unit)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit)

        def emit_share(runs: dict[str, Run]) -> None:
            def emit_job(image: Expr, group: Expr) -> None:
                base = (image * problem.in_channels + group * group_inputs) * pixels
                source = Source(buffers.x, base, pixels, constant=True)

                def emit_group(shape: PixelTile, start: Expr, count: Expr) -> None:
                    def emit_run(run: Channels) -> None:
                        first = (image * problem.out_channels + run.start) * pixels
                        target = planes(buffers.output.store, first, pixels)
                        with T.serial(0, count) as index:
                            sum_tile(rows, source, run, shape, start + index * sum(shape.widths), target)

                    rows.each_row(group, emit_run, runs.get(ROWS))

                each_group(cut, group_size, emit_group, runs.get(TILES))

            each_job((problem.batch, problem.groups), runs.get(JOBS), emit_job)

        sharing.along((JOBS, TILES, ROWS), emit_share)

    return build("conv_1x1", problem.input_shape, problem.output_shape, weight_constants(encoded, stage.bias), emit,
                 unit, stage.epilogue, over_residual=True)


def share_pixels(problem: Conv, encoded: Encoded, cut: Cut, unit: VectorUnit, launches: int = 1) -> Sharing:
    """Images and groups need nothing of each other, nor do tiles of pixels; block rows read the same pixels.

    `launches`: parallel loops over tiles or rows that run one after the other.
    """
    pixels = np.array(tile_pixels(cut, channels_at_once(encoded.block_size, unit), unit))
    rows = row_costs(encoded, 1) * problem.batch
    return share(unit.threads, {
        JOBS: job_costs(encoded, pixels.sum(), problem.batch),
        TILES: pixels * rows.sum(),
        ROWS: rows * pixels.sum(),
    }, {TILES: launches, ROWS: launches}, math.prod(problem.input_shape) + math.prod(problem.output_shape))
