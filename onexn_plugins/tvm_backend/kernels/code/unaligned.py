"""What a caller gives a network may lie at any address, not only where vector loads want it.

Our kernels say so of the activations they read (`anywhere`). TVM's own functions load vectors from aligned memory:
inputs are copied for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tvm import DataType
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.pipeline import as_loops
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer


def anywhere(shape: Sequence[int], dtype: str = "float32") -> Buffer:
    """A parameter's buffer that is aligned as its elements are."""
    return T.Buffer(tuple(shape), dtype, align=DataType(dtype).itemsize)


def copy(shape: Sequence[int], dtype: str) -> Any:
    """A PrimFunc that copies a tensor from anywhere to aligned memory."""
    count = math.prod(shape)
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name("copy")
            T.func_attr({"tirx.noalias": True})
            x, y = T.arg("x", anywhere(shape, dtype)), T.arg("y", T.Buffer(tuple(shape), dtype))
            flat_x, flat_y = (T.decl_buffer((count,), dtype, data=buffer.data) for buffer in (x, y))
            with T.serial(0, count) as index:
                T.buffer_store(flat_y, flat_x[index], [index])
        return as_loops(builder.get())
