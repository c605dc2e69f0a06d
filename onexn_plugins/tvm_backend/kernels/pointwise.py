"""1×1 convolutions of stride 1: output pixels are input pixels, so a channel is one flat run of height × width."""

from __future__ import annotations

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.encode import Encoded
from onexn_plugins.tvm_backend.kernels.blocks import BlockRows, Channels, Source, weight_constants
from onexn_plugins.tvm_backend.kernels.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel, Tile, VectorUnit
from onexn_plugins.tvm_backend.kernels.sums import each_tile, planes, sum_tile
from onexn_plugins.tvm_backend.kernels.tiling import PixelTile, cut_pixels
from onexn_plugins.tvm_backend.kernels.vector import Expr


def pointwise(
    problem: Conv, encoded: Encoded, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit, tile: Tile
) -> Kernel:
    """A 1×1 kernel: for each tile of pixels all block rows, so that the tile's pixels stay in the first cache."""
    pixels = problem.height * problem.width
    group_inputs = problem.in_channels // problem.groups
    cut = cut_pixels(pixels, tile, unit)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit)
        with T.serial(0, problem.batch) as image, T.serial(0, problem.groups) as group:
            base = (image * problem.in_channels + group * group_inputs) * pixels
            source = Source(buffers.x, base, pixels)

            def emit_tile(shape: PixelTile, start: Expr) -> None:
                def emit_run(run: Channels) -> None:
                    first = (image * problem.out_channels + run.start) * pixels
                    sum_tile(rows, source, run, shape, start, planes(buffers.output.store, first, pixels))

                rows.each_row(group, emit_run)

            each_tile(cut, emit_tile)

    constants = weight_constants(encoded, bias)
    return build("conv_1x1", problem.input_shape, problem.output_shape, constants, emit, epilogue)
