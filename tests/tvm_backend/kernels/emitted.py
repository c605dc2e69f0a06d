"""Runs what a part of a kernel emits, by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T
from tvm_ffi import from_dlpack

from tests.tvm_backend.kernels.bounds import with_bounds_checks
from tests.tvm_backend.kernels.differential import compile_functions, guarded


def emitted(size: int, emit: Callable[..., None], *arrays: np.ndarray) -> np.ndarray:
    """What `emit(y, a buffer for each array)` leaves in y, `size` zeros before; every access is checked."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name("part")
            T.func_attr({"tirx.noalias": True, "global_symbol": "part"})
            buffers = [T.arg(f"array_{number}", T.Buffer(array.shape, str(array.dtype)))
                       for number, array in enumerate(arrays)]
            emit(T.arg("y", T.Buffer((size,), "float32")), *buffers)
        function = with_bounds_checks(builder.get())
    _, y = guarded(np.zeros(size, np.float32))  # it also aligns, which TVM compiles for
    inputs = [guarded(array)[1] for array in arrays]
    compile_functions({"part": function}, optimise=False)["part"](*map(from_dlpack, [*inputs, y]))
    return y


def count(buffer: Any, index: Any, by: Any = 1.0) -> None:
    """Emit buffer[index] += by."""
    T.buffer_store(buffer, buffer[index] + by, [index])
