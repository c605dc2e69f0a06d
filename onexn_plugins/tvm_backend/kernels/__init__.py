"""1×N block-sparse CPU kernels as TVM PrimFuncs: one family per file on a common vector.py."""

from __future__ import annotations

import numpy as np

from onexn_plugins.tvm_backend.encode import encode
from onexn_plugins.tvm_backend.kernels.depthwise import depthwise
from onexn_plugins.tvm_backend.kernels.pointwise import pointwise
from onexn_plugins.tvm_backend.kernels.pooling import global_average_pool, pool
from onexn_plugins.tvm_backend.kernels.problem import (
    Conv,
    Epilogue,
    GlobalPool,
    Kernel,
    Linear,
    Pool,
    Tile,
    Unsupported,
    VectorUnit,
    check_shapes,
)
from onexn_plugins.tvm_backend.kernels.tiling import default_tile
from onexn_plugins.tvm_backend.kernels.vector import PASS_CONFIG

__all__ = ["PASS_CONFIG", "Conv", "Epilogue", "GlobalPool", "Kernel", "Linear", "Pool", "Tile", "Unsupported",
           "VectorUnit", "conv", "default_tile", "depthwise", "global_average_pool", "pool"]

DENSE_BLOCK_SIZE = 4


def conv(problem: Conv, weight: np.ndarray, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit,
         tile: Tile | None = None) -> Kernel:
    """A 1×N block-sparse convolution; a weight without zero blocks becomes a dense one.

    Args:
        problem: the convolution.
        weight: float32 [out_channels, in_channels / groups, *kernel].
        bias: float32 [out_channels].
        epilogue: what follows the sum.
        unit: the target's vector registers.
        tile: block_size and vectors; default_tile for block_size 4 where it is None.

    Raises:
        Unsupported: tensors beyond int32 offsets.
    """
    check_shapes(problem)
    tile = tile or default_tile(problem, DENSE_BLOCK_SIZE, unit)
    encoded = encode(weight, tile.block_size, problem.groups)
    if problem.is_pointwise:
        return pointwise(problem, encoded, bias, epilogue, unit, tile)
    raise Unsupported(f"a {problem.kernel} kernel")
