"""Requests for kernels from plain arrays, as a compiler's planner would make them."""

from __future__ import annotations

import numpy as np

from onexn_plugins.tvm_backend.kernels.choose import dense_block
from onexn_plugins.tvm_backend.kernels.parts.tiling import default_tile
from onexn_plugins.tvm_backend.kernels.problem import Choice, Conv, Epilogue, Linear, Tile
from onexn_plugins.tvm_backend.kernels.request import PLAIN, Request, Stage, Weights
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit


def stage(problem: Conv | Linear, weight: np.ndarray, bias: np.ndarray, epilogue: Epilogue = PLAIN,
          tile: Tile | None = None) -> Stage:
    """A layer whose zero blocks are skipped; without a tile one that has no blocks, as a depthwise one."""
    groups = problem.groups if isinstance(problem, Conv) else 1
    return Stage(problem, Weights(weight, bias, groups), epilogue, None if tile is None else Choice(True, tile))


def single(problem: Conv | Linear, weight: np.ndarray, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit,
           tile: Tile | None = None) -> Request:
    """One layer, by default in the tile of a dense one."""
    tile = tile or default_tile(problem, dense_block(problem, unit), unit)
    return Request((stage(problem, weight, bias, epilogue, tile),), unit)
