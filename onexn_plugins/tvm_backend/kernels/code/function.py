"""A PrimFunc around a kernel's body: its buffers, their flat views, the order the backend relies on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.activation import activate
from onexn_plugins.tvm_backend.kernels.code.pipeline import as_loops
from onexn_plugins.tvm_backend.kernels.code.unaligned import anywhere
from onexn_plugins.tvm_backend.kernels.code.vector import (
    LINE,
    Buffer,
    Expr,
    Register,
    concatenate,
    load,
    part,
    prefetch,
    store,
)
from onexn_plugins.tvm_backend.kernels.problem import Epilogue, Kernel
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit


@dataclass(frozen=True)
class Output:
    """Where results go: y (flat), after the residual and the activation."""

    y: Buffer
    residual: Buffer | None
    epilogue: Epilogue
    unit: VectorUnit

    def store(self, index: Expr, value: Expr, lanes: int) -> None:
        """Finish a vector of sums (bias included) and write it to y from flat `index` on."""
        self.store_parts([index], value, lanes)

    def prefetch(self, index: Expr, count: int) -> None:
        """Ask for the cache lines that storing `count` values from flat `index` on will touch."""
        for line in range(0, count, LINE):
            if self.residual is not None:
                prefetch(self.residual, index + line)
            prefetch(self.y, index + line, to_write=True)

    def store_parts(self, indices: Sequence[Expr], value: Expr, lanes: int) -> None:
        """As store, for a vector whose parts of `lanes` go to y from each of the indices on."""
        whole = len(indices) * lanes
        if self.residual is not None:
            value = value + concatenate([load(self.residual, index, lanes) for index in indices], lanes)
        value = activate(value, self.epilogue.activation, whole, self.unit)
        if len(indices) == 1:
            store(self.y, indices[0], value, lanes)
            return
        finished = Register(value, whole)
        for number, index in enumerate(indices):
            store(self.y, index, part(finished, number * lanes, lanes), lanes)


@dataclass(frozen=True)
class Buffers:
    """Flat views of a kernel's buffers; constants by name, activations besides x in order."""

    x: Buffer
    constants: dict[str, Buffer]
    output: Output
    others: tuple[Buffer, ...] = ()


def build(
    name: str,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    constants: dict[str, np.ndarray],
    emit: Callable[[Buffers], None],
    unit: VectorUnit,
    epilogue: Epilogue | None = None,
    *,
    over_residual: bool = False,
    others: Sequence[Sequence[int]] = (),
) -> Kernel:
    """A kernel called `name` whose body is what `emit` writes with the flat buffers it is given.

    `over_residual`: y and the residual may be one buffer, if the epilogue allows. `others`: shapes of activations that
    it reads besides x.
    """
    epilogue = epilogue or Epilogue()
    in_place = over_residual and epilogue.residual and epilogue.in_place
    arrays = {key: _at_least_one(array) for key, array in constants.items()}
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name(name)
            T.func_attr({"tirx.noalias": True, "global_symbol": name})
            x = T.arg("x", anywhere(input_shape))
            buffers = {key: _argument(key, array.shape, str(array.dtype)) for key, array in arrays.items()}
            further = [T.arg(f"x{place}", anywhere(shape)) for place, shape in enumerate(others, 1)]
            residual = T.arg("residual", anywhere(output_shape)) if epilogue.residual else None
            y = None if in_place else _argument("y", output_shape)
            added = None if residual is None else _flat(residual)
            source, written = _flat(x), added if y is None else _flat(y)
            assert written is not None, "in place there is a residual"
            emit(Buffers(source, buffers, Output(written, added, epilogue, unit), tuple(map(_flat, further))))
        return Kernel(as_loops(builder.get()), tuple(arrays.values()), in_place=in_place)


def _argument(name: str, shape: Sequence[int], dtype: str = "float32") -> Buffer:
    return T.arg(name, T.Buffer(tuple(shape), dtype))


def _flat(argument: Buffer) -> Buffer:
    """The same memory as one flat array; arguments must all be declared before the first of these."""
    return T.decl_buffer((math.prod(int(size) for size in argument.shape),), "float32", data=argument.data)


def _at_least_one(array: np.ndarray) -> np.ndarray:
    """Buffers may not be empty: a weight without any kept block gets one unused element."""
    return array if array.size else np.zeros(1, array.dtype)
