"""Convolutions with few multiplications, by Winograd's algorithm: F(m×m, k×k) computes m × m outputs at a time.

Tiles of input pixels and the weights are transformed (Lavin and Gray, Fast Algorithms for Convolutional Neural
Networks, 2015); then each point is a product of matrices of its own, channels × tiles: 16 points instead of 36
multiplications for 2×2 outputs of 3×3 taps, 36 instead of 144 for 4×4. A strided convolution is the sum of ones without
stride over the image's phases (every stride-th row and column), which are added at their points. A 1×N block of zero
kernels stays a block of zeros at every point, so that skipping blocks and Winograd's saving multiply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, Register, alloc_running_over, load, store
from onexn_plugins.tvm_backend.kernels.encode import Encoded, encode
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, weight_constants
from onexn_plugins.tvm_backend.kernels.parts.sharing import COPY, JOBS, ROWS, Run, Sharing, each_job, share_bands
from onexn_plugins.tvm_backend.kernels.parts.window import Image, band_start, pack
from onexn_plugins.tvm_backend.kernels.problem import Kernel, Tile, Unsupported
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.kernels.winograd.choice import best_outputs, is_possible
from onexn_plugins.tvm_backend.kernels.winograd.layout import Layout, Points, ProductLayout, layout_for
from onexn_plugins.tvm_backend.kernels.winograd.pixels import Sums, store_pixels
from onexn_plugins.tvm_backend.kernels.winograd.products import ProductSums
from onexn_plugins.tvm_backend.kernels.winograd.sums import RowSums
from onexn_plugins.tvm_backend.kernels.winograd.transform import transform

# Differences of pixels: one infinity makes NaN of all outputs of its tile.
WOULD_SPREAD = "Winograd's algorithm spreads infinities and NaN over a tile (strict)"


def why_not_winograd(request: Request) -> str | None:
    """None where fewer multiplications pay for the transforms."""
    stage = request.first
    if request.unit.strict:
        return WOULD_SPREAD
    if _best(request) is not None:
        return None
    if stage.conv.is_pointwise or stage.conv.dilation != (1, 1):
        return "Winograd's algorithm needs several taps and no dilation"
    return "the transforms would cost more than they save"


def winograd_method(request: Request) -> str:
    """Its algorithm in words."""
    return _layout(request, _outputs(request)).method


def winograd(request: Request, outputs: int | None = None) -> Kernel:
    """A k×k kernel of any stride without dilation: per band of tile rows, transform the input once, then all sums.

    Where a row of points is summed at once, of the tile the block size counts alone.

    Args:
        request: a convolution.
        outputs: pixels of a tile per side, 2 or 4; None for what is fastest.

    Raises:
        Unsupported: a dilation, or more taps than the tile allows.
    """
    stage, unit = request.first, request.unit
    problem, outputs = stage.conv, outputs or _outputs(request)
    if not is_possible(problem, outputs):
        raise Unsupported(f"Winograd's algorithm for tiles of {outputs}×{outputs} pixels, a kernel of "
                          f"{problem.kernel}, stride {problem.stride} and dilation {problem.dilation}")
    layout = _layout(request, outputs)
    encoded = transformed(layout, stage.array, stage.tile.block_size, stage.keeps_all)
    sharing = _sharing(layout, encoded, unit)

    def emit(buffers: Buffers) -> None:
        allocate = _sums(layout, encoded, buffers.constants, unit, stage.tile)
        bands, _ = band_start(layout.window, 0)

        def emit_job(image: Expr, group: Expr, band: Expr) -> None:
            first_row = band_start(layout.window, band)[1]
            points = T.alloc_buffer((layout.size,), "float32", scope="global")
            inputs = image * problem.in_channels + group * layout.channels
            _transform_inputs(layout, buffers.x, inputs, points, first_row, unit, sharing.axis == ROWS)

            def emit_rows(runs: dict[str, Run]) -> None:
                sums = allocate(group)
                sums.add(points, runs.get(ROWS))
                store_pixels(sums, buffers.output, image, first_row, runs.get(ROWS))

            sharing.along((ROWS,), emit_rows)

        sizes = (problem.batch, problem.groups, bands)
        sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), emit_job))

    name = f"winograd_{outputs}x{outputs}_{problem.kernel[0]}x{problem.kernel[1]}"
    kernel = build(name, problem.input_shape, problem.output_shape, weight_constants(encoded, stage.bias), emit, unit,
                   stage.epilogue)
    return replace(kernel, method=layout.method)


def _best(request: Request) -> int | None:
    return best_outputs(request.first.conv, request.first.blocks.density, request.unit)


def _outputs(request: Request) -> int:
    """Pixels of a tile per side: what is fastest, or the smallest tile where a direct kernel would be faster."""
    return _best(request) or 2


def _layout(request: Request, outputs: int) -> Layout:
    return layout_for(request.first.conv, outputs, request.unit)


def _sums(layout: Layout, encoded: Encoded, constants: dict[str, Buffer], unit: VectorUnit,
          tile: Tile) -> Callable[[Expr], Sums]:
    """Allocates the sums of a conv group."""
    if isinstance(layout, ProductLayout):
        products = BlockRows(encoded, constants, unit)
        return lambda group: ProductSums.allocate(layout, products, group, tile)
    rows = BlockRows(encoded, constants, unit, sums=layout.side[1])
    return lambda group: RowSums.allocate(layout, rows, group)


def _sharing(layout: Layout, encoded: Encoded, unit: VectorUnit) -> Sharing:
    tiles = layout.vectors * unit.lanes
    transforming = float(layout.channels * tiles * layout.points * COPY)
    bands, _ = band_start(layout.window, 0)
    return share_bands(layout.problem, encoded, tiles, bands, transforming, unit.threads)


def transformed(layout: Points, weight: np.ndarray, block_size: int, keep_all: bool) -> Encoded:
    """The weight at every point, encoded; values lie as they are read: [run of points, blocks, points, N]."""
    row_step, column_step = layout.problem.stride
    phases = {
        (down, right): vertical.weight @ weight[:, :, down::row_step, right::column_step] @ horizontal.weight.T
        for (down, vertical), (right, horizontal) in layout.phases
    }
    points = [phases[down, right][:, :, row, column] for run in layout.reading for row, down, right, column in run]
    encoded = encode(np.stack(points, axis=-1), block_size, layout.problem.groups, keep_all=keep_all)
    values = encoded.values.reshape(encoded.num_blocks, layout.points, encoded.block_size)
    cuts = np.cumsum([len(run) for run in layout.reading])[:-1]
    return replace(encoded, values=np.concatenate([run.reshape(-1) for run in np.split(values, cuts, axis=1)]))


def _transform_inputs(layout: Layout, x: Buffer, first: Expr, points: Buffer, first_row: Expr, unit: VectorUnit,
                      shared: bool) -> None:
    """Each channel's band: its pixels side by side for every place in a tile, then to points; threads may share it."""
    problem, window, lanes = layout.problem, layout.window, unit.lanes
    with (T.parallel if shared else T.serial)(0, layout.channels) as channel:
        scratch = alloc_running_over(window.size, lanes)
        image = Image(x, (first + channel) * (problem.height * problem.width), problem.width)
        pack(window, image, scratch, 0, first_row, unit)
        with T.serial(0, layout.vectors) as vector:
            tile = vector * lanes
            for (down, vertical), (right, horizontal) in layout.phases:
                pixels = [Register(load(scratch, tile + offset, lanes), lanes)
                          for offset in layout.pixels(down, right)]
                found = transform(vertical.input, horizontal.input, pixels)
                for rows in layout.rows:
                    for row, values in enumerate(found[rows.first:rows.last], rows.first):
                        for column, value in enumerate(values):
                            place = rows.places.index((down, right, column))
                            store(points, layout.point(tile, channel, rows, row, place), value.value, lanes)
