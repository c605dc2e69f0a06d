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
    """NaN where a window holds one, the last of them where places are asked for, row after row."""

    def _run(self, x: np.ndarray, **attributes: Any) -> tuple[np.ndarray, ...]:
        if x.dtype.kind != "f" or not np.isnan(x).any():
            return tuple(super()._run(x, **attributes))
        missing = np.isnan(x)
        numbers, *places = super()._run(np.where(missing, x.dtype.type(-np.inf), x), **attributes)
        at = np.where(missing, np.arange(x.size, dtype=np.float64).reshape(x.shape), -1)
        last = super()._run(at, **attributes)[0]
        held = last >= 0
        places = [np.where(held, last.astype(np.int64), place) for place in places]
        return np.where(held, x.dtype.type(np.nan), numbers), *places


class GlobalMaxPool(OpRun):
    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)
