"""Which kernel serves a layer: the map of all families."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onexn_plugins.tvm_backend.kernels.conv.packed import is_packed, packed
from onexn_plugins.tvm_backend.kernels.conv.pointwise import pointwise
from onexn_plugins.tvm_backend.kernels.conv.sliced import is_sliced, sliced
from onexn_plugins.tvm_backend.kernels.conv.spatial import spatial
from onexn_plugins.tvm_backend.kernels.encode import Encoded, encode
from onexn_plugins.tvm_backend.kernels.linear.over_channels import linear_kernel
from onexn_plugins.tvm_backend.kernels.linear.over_rows import filled, fills_vectors, linear_rows
from onexn_plugins.tvm_backend.kernels.pairs.choose import check_fusible, check_projection, fused_kernel
from onexn_plugins.tvm_backend.kernels.pairs.projection import Projection
from onexn_plugins.tvm_backend.kernels.pairs.stem import is_stem, stem_kernel
from onexn_plugins.tvm_backend.kernels.parts.tiling import default_tile
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel, Linear, Tile, Vectors, check_problem
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.kernels.winograd.choice import best_outputs
from onexn_plugins.tvm_backend.kernels.winograd.kernel import winograd

_DENSE_LINEAR_BLOCK = 16


def conv(problem: Conv, weight: np.ndarray, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit,
         tile: Tile | None = None, *, keep_all: bool = False) -> Kernel:
    """A 1×N convolution of any kernel, stride, padding, dilation and groups.

    Args:
        problem: the convolution.
        weight: [out_channels, in_channels / groups, *kernel].
        bias: [out_channels].
        epilogue: what follows the sum.
        unit: the target's vector registers.
        tile: block size and vectors; a dense convolution's where it is None.
        keep_all: compute zero blocks too, which makes the kernel dense.
    """
    check_problem(problem, weight, bias)
    tile = tile or default_tile(problem, dense_block(problem, unit), unit)
    encoded = encode(weight, tile.block_size, problem.groups, keep_all=keep_all)
    if (features := as_linear(problem)) is not None:
        return _linear(features, encoded, bias, epilogue, unit, tile, problem.input_shape, problem.output_shape)
    outputs = best_outputs(problem, encoded.density, unit)
    if outputs is not None:
        return winograd(problem, weight, bias, epilogue, unit, tile, outputs=outputs, keep_all=keep_all)
    return direct_conv(problem, encoded, bias, epilogue, unit, tile)


def direct_conv(problem: Conv, encoded: Encoded, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit,
                tile: Tile) -> Kernel:
    """As conv, of an encoded weight and never by Winograd's algorithm."""
    family: Callable[..., Kernel] = pointwise if problem.is_pointwise else spatial
    if is_packed(problem, encoded, tile, unit):
        family = packed
    elif not problem.is_pointwise and is_sliced(encoded, tile, unit):
        family = sliced
    return family(problem, encoded, bias, epilogue, unit, tile)


def conv_depthwise(
    problem: Conv, weight: np.ndarray, bias: np.ndarray, epilogue: Epilogue,
    depthwise_problem: Conv, dw_weight: np.ndarray, dw_bias: np.ndarray, dw_epilogue: Epilogue,
    unit: VectorUnit, tile: Tile | None = None, *, keep_all: bool = False, projection: Projection | None = None,
) -> Kernel:
    """A 1×N convolution, its activation and the depthwise convolution that follows, without the tensor between; and, if
    it is asked for, the 1×1 convolution after that.

    x is the convolution's input; the residual (of the last one's epilogue) and y have the last one's output shape.
    """
    check_problem(problem, weight, bias)
    check_problem(depthwise_problem, dw_weight, dw_bias)
    check_fusible(problem, epilogue, depthwise_problem)
    if projection is not None:
        check_projection(problem, depthwise_problem, dw_epilogue, projection.problem, unit)
    tile = tile or default_tile(problem, dense_block(problem, unit), unit)
    if is_stem(problem, depthwise_problem, unit):
        return stem_kernel(problem, weight, bias, epilogue, depthwise_problem, dw_weight, dw_bias, dw_epilogue, unit,
                           tile, keep_all=keep_all, projection=projection)
    encoded = encode(weight, tile.block_size, problem.groups, keep_all=keep_all)
    return fused_kernel(problem, encoded, bias, epilogue, depthwise_problem, dw_weight, dw_bias, dw_epilogue, unit,
                        tile, projection)


def linear(problem: Linear, weight: np.ndarray, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit,
           tile: Tile | None = None, *, keep_all: bool = False) -> Kernel:
    """A fully connected 1×N layer: weight [out_features, in_features], bias [out_features]."""
    check_problem(problem, weight, bias)
    tile = tile or default_tile(problem, dense_block(problem, unit), unit)
    encoded = encode(weight, tile.block_size, keep_all=keep_all)
    return _linear(problem, encoded, bias, epilogue, unit, tile, problem.input_shape, problem.output_shape)


def as_linear(problem: Conv | Linear) -> Linear | None:
    """The linear layer that computes the same; a convolution is one on a single pixel."""
    if isinstance(problem, Linear):
        return problem
    if problem.is_pointwise and problem.height * problem.width == problem.groups == 1:
        return Linear(problem.batch, problem.in_channels, problem.out_channels)
    return None


def dense_block(problem: Conv | Linear, unit: VectorUnit) -> int:
    """Block size of a layer that has no blocks."""
    features = as_linear(problem)
    return unit.measured.dense_block if features is None or _on_rows(features, unit) else _DENSE_LINEAR_BLOCK


def sparse_vectors(problem: Conv | Linear, unit: VectorUnit) -> Vectors:
    """What the vectors of its kernel run over where blocks are skipped."""
    features = as_linear(problem)
    if features is None:
        return "pixels"
    return "rows" if fills_vectors(features, unit) else "channels"


def filled_lanes(problem: Conv | Linear, unit: VectorUnit) -> float:
    """Share of the lanes that rows fill where vectors run over them."""
    features = as_linear(problem)
    return 1.0 if features is None else filled(features, unit)


def _linear(
    problem: Linear, encoded: Encoded, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit, tile: Tile,
    input_shape: tuple[int, ...], output_shape: tuple[int, ...],
) -> Kernel:
    """Dense weights fill vectors over the outputs, too, whatever the number of rows."""
    if _on_rows(problem, unit) if encoded.is_dense else fills_vectors(problem, unit):
        return linear_rows(problem, encoded, bias, epilogue, unit, tile, input_shape, output_shape)
    return linear_kernel(problem, encoded, bias, epilogue, unit, input_shape, output_shape)


def _on_rows(problem: Linear, unit: VectorUnit) -> bool:
    """Whether vectors over rows are faster without blocks, too."""
    return unit.measured.dense_rows and fills_vectors(problem, unit)
