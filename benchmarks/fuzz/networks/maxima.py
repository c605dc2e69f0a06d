"""Maxima of windows and channels by ONNX's reference, with NaN kept, as torch and this package keep it.

The reference and onnxruntime lose it or what stood before it, each in its own way, and the reference makes other
shapes of the maximum of a channel where an image has not two axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_max_pool import MaxPool as PoolOfNumbers


class MaxPool(PoolOfNumbers):
    """NaN where a window holds one; places are those of the maxima without it."""

    def _run(self, x: np.ndarray, **attributes: Any) -> tuple[np.ndarray, ...]:
        if x.dtype.kind != "f" or not np.isnan(x).any():
            return tuple(super()._run(x, **attributes))
        missing = np.isnan(x)
        numbers, *places = super()._run(np.where(missing, x.dtype.type(-np.inf), x), **attributes)
        held = super()._run(missing.astype(x.dtype), **attributes)[0] > 0
        return np.where(held, x.dtype.type(np.nan), numbers), *places


class GlobalMaxPool(OpRun):
    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)
