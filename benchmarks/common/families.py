"""One layer for every family of kernels, as the package would compute it on a core."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.common.requests import single, stage
from benchmarks.common.weights import pruned
from onexn_plugins.tvm_backend.kernels.choose import dense_block, kernel_of
from onexn_plugins.tvm_backend.kernels.parts.tiling import default_tile
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel, Linear, Tile
from onexn_plugins.tvm_backend.kernels.request import Request, Stage
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

BLOCK_SIZE, KEPT = 4, 0.25
RELU = Epilogue(activation="relu")
POINTWISE = Conv(1, 96, 28, 28, 96)
_SPATIAL = Conv(1, 64, 28, 28, 64, (3, 3), padding=(1, 1, 1, 1))
_STRIDED = Conv(1, 64, 56, 56, 64, (3, 3), (2, 2), padding=(1, 1, 1, 1))
_DEPTHWISE = Conv(1, 96, 28, 28, 96, (3, 3), padding=(1, 1, 1, 1), groups=96)
_LINEAR = Linear(1, 1280, 1000)

Make = Callable[[VectorUnit], tuple[Kernel, Tile | None]]


def bias(problem: Conv | Linear) -> np.ndarray:
    """Ones."""
    return np.ones(problem.weight_shape[0], np.float32)


def _conv(problem: Conv, kept: float) -> Make:
    def make(unit: VectorUnit) -> tuple[Kernel, Tile | None]:
        tile = default_tile(problem, BLOCK_SIZE if kept < 1 else dense_block(problem, unit), unit)
        return kernel_of(single(problem, pruned(problem, kept, BLOCK_SIZE), bias(problem), RELU, unit, tile)), tile

    return make


def _linear(kept: float) -> Make:
    def make(unit: VectorUnit) -> tuple[Kernel, Tile | None]:
        tile = default_tile(_LINEAR, BLOCK_SIZE if kept < 1 else dense_block(_LINEAR, unit), unit)
        weight = pruned(_LINEAR, kept, BLOCK_SIZE)
        return kernel_of(single(_LINEAR, weight, bias(_LINEAR), Epilogue(), unit, tile)), tile

    return make


def _depthwise(unit: VectorUnit) -> tuple[Kernel, Tile | None]:
    return kernel_of(Request((_depthwise_stage(),), unit)), None


def _fused(unit: VectorUnit) -> tuple[Kernel, Tile | None]:
    tile = default_tile(POINTWISE, BLOCK_SIZE, unit)
    first = single(POINTWISE, pruned(POINTWISE, KEPT, BLOCK_SIZE), bias(POINTWISE), RELU, unit, tile)
    return kernel_of(Request((*first.stages, _depthwise_stage()), unit)), tile


def _depthwise_stage() -> Stage:
    return stage(_DEPTHWISE, pruned(_DEPTHWISE, 1, BLOCK_SIZE), bias(_DEPTHWISE), RELU)


FAMILIES: dict[str, Make] = {
    "1×1, dense": _conv(POINTWISE, 1),
    "1×1, 25 % kept": _conv(POINTWISE, KEPT),
    "1×1 + depthwise, 25 % kept": _fused,
    "depthwise 3×3": _depthwise,
    "3×3 by Winograd's algorithm, dense": _conv(_SPATIAL, 1),
    "3×3 by Winograd's algorithm, 25 % kept": _conv(_SPATIAL, KEPT),
    "3×3 of stride 2, dense": _conv(_STRIDED, 1),
    "3×3 of stride 2, 25 % kept": _conv(_STRIDED, KEPT),
    "linear, dense": _linear(1),
    "linear, 25 % kept": _linear(KEPT),
}
