"""Random weights with a share of their 1×N blocks, for kernels on their own."""

from __future__ import annotations

import numpy as np

from onexn_plugins.tvm_backend.kernels.problem import Conv, Linear


def pruned(problem: Conv | Linear, kept: float, block_size: int) -> np.ndarray:
    """Exactly that share of blocks, drawn over the whole layer, so that block rows differ in length."""
    generator, shape = np.random.default_rng(0), problem.weight_shape
    rows = -(-shape[0] // block_size)
    keep = (generator.permutation(rows * shape[1]) < round(kept * rows * shape[1])).reshape(rows, shape[1])
    mask = np.repeat(keep, block_size, 0)[: shape[0]]
    return generator.standard_normal(shape, np.float32) * mask.reshape(*mask.shape, *(1 for _ in shape[2:]))
