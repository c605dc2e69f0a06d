"""A 1×N convolution and the depthwise convolution after it, one block row at a time.

The hidden tensor between them (the widest of an inverted residual, MobileNetV2 section 3.3) never exists: N channels
of it are summed, activated, padded and consumed while they are in the cache.
"""

from __future__ import annotations

import math

import numpy as np

from onexn_plugins.tvm_backend.kernels.channelwise.depthwise import check_depthwise, depthwise_constants
from onexn_plugins.tvm_backend.kernels.channelwise.sliding import anchors, channel_budget, row_alignment
from onexn_plugins.tvm_backend.kernels.channelwise.unpadded import Strips
from onexn_plugins.tvm_backend.kernels.encode import Encoded
from onexn_plugins.tvm_backend.kernels.pairs.copied import copied
from onexn_plugins.tvm_backend.kernels.pairs.laid_out import is_laid, laid, laid_rows
from onexn_plugins.tvm_backend.kernels.pairs.projection import Projection, fused
from onexn_plugins.tvm_backend.kernels.pairs.read_unpadded import flat, is_flat
from onexn_plugins.tvm_backend.kernels.pairs.stem import is_stem
from onexn_plugins.tvm_backend.kernels.pairs.written_in_place import band_rows, direct, is_direct
from onexn_plugins.tvm_backend.kernels.parts.blocks import weight_constants
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
from onexn_plugins.tvm_backend.kernels.parts.tiling import channels_at_once
from onexn_plugins.tvm_backend.kernels.parts.window import Window, window_for
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel, Tile, Unsupported
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Bytes of the windows of the channels summed at once that stay in a first cache of 32 KiB beside what is summed, and
# multiply-adds of a hidden pixel up to which it pays that neighbouring bands both sum the rows they share: pairs of
# MobileNetV2 at 112×112 are then 1.15 to 1.5 times faster, at 56×56 up to 1.3 times; dense ones would lose 4 %.
_WINDOWS_BUDGET, _FEW_MACS = 20 * 1024, 12
# Bytes of a band's output that a projection reads: a quarter of a second-level cache of 2 MiB.
_PROJECTED_BUDGET = 512 * 1024
# Bytes of an image's output of the depthwise convolution from which on a projection is computed with it.
_LEAST_PROJECTED = 256 * 1024
# Ways from the 1×N convolution to the depthwise one: hidden channels that are read as they are, hidden channels summed
# in the order in which they are read, hidden rows written to where they are read, channels that are copied there.
_FLAT, _LAID, _DIRECT, _PACKED = "flat", "laid", "direct", "packed"


def check_fusible(problem: Conv, epilogue: Epilogue, depthwise: Conv) -> None:
    """Raise Unsupported unless `depthwise` is one and takes exactly what the convolution gives."""
    check_depthwise(depthwise)
    if depthwise.input_shape != problem.output_shape:
        raise Unsupported(f"the convolution gives {problem.output_shape}, the depthwise one takes "
                          f"{depthwise.input_shape}")
    if epilogue.residual:
        raise Unsupported("a residual between the convolution and the depthwise one")


def check_projection(problem: Conv, depthwise: Conv, dw_epilogue: Epilogue, projection: Conv,
                     unit: VectorUnit) -> None:
    """Raise Unsupported unless a 1×1 convolution takes what the depthwise one gives, and it pays not to store that."""
    if not projection.is_pointwise or problem.groups != 1 or projection.groups != 1:
        raise Unsupported("a projection is 1×1, of one group and after one of one group")
    if projection.input_shape != depthwise.output_shape or dw_epilogue.residual:
        raise Unsupported(f"the depthwise convolution gives {depthwise.output_shape}, the projection takes "
                          f"{projection.input_shape}")
    if not unit.measured.projects:
        raise Unsupported("AVX-512 with whole data paths gains, AVX2 and Zen 4 (measured on both) do not")
    if not is_stem(problem, depthwise, unit) and (is_flat(problem, depthwise, unit) or not is_direct(depthwise, unit)):
        raise Unsupported("hidden rows do not fill vectors")
    if 4 * math.prod(depthwise.output_shape[1:]) < _LEAST_PROJECTED:
        raise Unsupported("what the depthwise convolution gives stays in the cache")


def fused_kernel(
    problem: Conv, encoded: Encoded, bias: np.ndarray, epilogue: Epilogue,
    depthwise: Conv, dw_weight: np.ndarray, dw_bias: np.ndarray, dw_epilogue: Epilogue,
    unit: VectorUnit, tile: Tile, projection: Projection | None = None,
) -> Kernel:
    """The fused kernel; x is the convolution's input, residual and y are the last one's."""
    way = _way(problem, encoded, depthwise, unit)
    sharing = _sharing(problem, encoded, depthwise, unit, way, projection)
    constants = weight_constants(encoded, bias) | depthwise_constants(dw_weight, dw_bias)
    name = f"conv_{problem.kernel[0]}x{problem.kernel[1]}_depthwise"
    if way in (_FLAT, _LAID):
        name = f"{name}_{way}"
    if way == _FLAT:
        emit = flat(problem, encoded, epilogue, depthwise, unit, tile, sharing)
    else:
        window = _window(problem, encoded, depthwise, unit, sharing, way, projection)
        constants |= anchors(window, unit)
        if way == _LAID:
            emit = laid(problem, encoded, epilogue, window, unit, tile, sharing)
        elif way == _DIRECT:
            emit = direct(problem, encoded, epilogue, window, unit, tile, sharing, dw_epilogue, projection)
        else:
            emit = copied(problem, encoded, epilogue, window, unit, tile, sharing)
    return fused(name, problem, depthwise, constants, emit, unit, dw_epilogue, projection)


def _way(problem: Conv, encoded: Encoded, depthwise: Conv, unit: VectorUnit) -> str:
    """How the depthwise convolution gets the hidden channels."""
    if is_flat(problem, depthwise, unit):
        return _FLAT
    if not is_direct(depthwise, unit):
        return _PACKED
    return _LAID if is_laid(problem, encoded, depthwise, unit) else _DIRECT


def _sharing(problem: Conv, encoded: Encoded, depthwise: Conv, unit: VectorUnit, way: str,
             projection: Projection | None) -> Sharing:
    """Images and groups need nothing of each other; block rows read the same input, bands about a part of it each."""
    pixels, rows_per_group = problem.out_height * problem.out_width, encoded.pattern.rows_per_group
    following = window_cost(depthwise) * encoded.block_size  # of each block row
    if projection:
        following += projection.macs / len(encoded.row_counts)
    rows = (row_costs(encoded, pixels) + following * problem.groups) * problem.batch
    candidates = {JOBS: job_costs(encoded, pixels, problem.batch, following * rows_per_group)}
    if way != _PACKED:
        count, height = _bands(problem, encoded, depthwise, unit, way, projection)
        taken = min(depthwise.height, (height - 1) * depthwise.stride[0] + depthwise.kernel[0])
        share_of_rows = max(height / depthwise.out_height, taken / depthwise.height)
        candidates[BANDS] = np.full(count, rows.sum() * share_of_rows)
    launches = problem.batch * problem.groups * (1 if problem.is_pointwise else 2)
    exchanged = math.prod(problem.input_shape) + math.prod(depthwise.output_shape)
    if projection is None and way != _LAID:  # a projection needs all hidden channels; a thread lays out all inputs
        candidates[ROWS] = rows
    return share(unit.threads, candidates, {ROWS: launches, BANDS: launches}, exchanged)


def _bands(problem: Conv, encoded: Encoded, depthwise: Conv, unit: VectorUnit, way: str,
           projection: Projection | None) -> tuple[int, int]:
    """How many bands threads may take, and the output rows of one."""
    if way == _FLAT:
        blocks = Strips(depthwise, unit, unit.threads).blocks
        return len(blocks), max(map(len, blocks))
    if way == _LAID:
        height = laid_rows(problem, encoded, depthwise, unit)
    else:
        height = _cached_rows(encoded, depthwise, unit, projection) or band_rows(depthwise, unit)
    return -(-depthwise.out_height // height), height


def _window(problem: Conv, encoded: Encoded, depthwise: Conv, unit: VectorUnit, sharing: Sharing, way: str,
            projection: Projection | None) -> Window:
    """The depthwise convolution's scratch of one channel: all rows or a band where written to directly."""
    if way == _PACKED:
        return window_for(depthwise, 1, channel_budget(unit), row_alignment(unit))
    if way == _LAID:
        return Window(depthwise, laid_rows(problem, encoded, depthwise, unit))
    rows = _cached_rows(encoded, depthwise, unit, projection)
    if rows is None:
        rows = band_rows(depthwise, unit) if sharing.axis == BANDS else depthwise.out_height
    return Window(depthwise, rows, unit.lanes)  # what is written and read most should not cross cache lines


def _cached_rows(encoded: Encoded, depthwise: Conv, unit: VectorUnit, projection: Projection | None) -> int | None:
    """Output rows of a band whose windows the first cache holds, or whose output for a projection the second; None
    where bands do not pay."""
    macs = encoded.density * encoded.pattern.in_channels * encoded.taps
    if unit.measured.cached_bands and macs <= _FEW_MACS:
        budget = _WINDOWS_BUDGET // channels_at_once(encoded.block_size, unit)
        rows = window_for(depthwise, 1, budget, unit.lanes).rows
    elif projection:
        most = max(1, _PROJECTED_BUDGET // (4 * depthwise.out_channels * depthwise.out_width))
        rows = -(-depthwise.out_height // -(-depthwise.out_height // most))
    else:
        return None
    return min(rows, band_rows(depthwise, unit))


