"""How large a tensor may be."""

from __future__ import annotations

import math
from collections.abc import Iterable

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.reading.ways_out import EXPORT_AGAIN

# Kernels index with int32, so no tensor may hold more elements than that.
MAX_ELEMENTS = 2**31 - 1


def check_dimensions(name: str, dims: Iterable[int]) -> None:
    """Raise OneXNError where a dimension is negative or the tensor has more elements than int32 can index."""
    shape = list(dims)
    if any(size < 0 for size in shape):
        raise OneXNError(name, f"its shape {shape} has a negative dimension", EXPORT_AGAIN)
    if math.prod(shape) > MAX_ELEMENTS:
        raise OneXNError(name, f"its shape {shape} holds more than {MAX_ELEMENTS} elements",
                         "Compile the model for smaller inputs")
