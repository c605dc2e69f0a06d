"""A plain function over flat tensors, and its call: what an operator of our own is written as.

    def double(x: Buffer, y: Buffer) -> None:
        with T.serial(0, count) as index:
            T.buffer_store(y, x[index] * 2, [index])
    (output,) = call(builder, "double", double, [x], [spec])

The code is scalar and needs nothing but a processor: it runs in TVM's virtual machine and in a static program alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.pipeline import as_loops
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer
from onexn_plugins.tvm_backend.reading.graph import TensorSpec

# TVM's fuser must not look into such functions: kOpaque in tvm/relax/op_attr_types.h.
OPAQUE = 8


def call(builder: relax.BlockBuilder, name: str, body: Callable[..., None], inputs: Sequence[relax.Expr],
         outputs: Sequence[TensorSpec]) -> list[relax.Expr]:
    """Emit a call of the function that `body` writes: it is given the inputs and outputs as flat buffers, in order.

    Booleans are stored as bytes that are 0 or 1; a body reads and writes them as "bool".
    """
    given = [(tuple(int(size) for size in value.ty.shape), str(value.ty.dtype)) for value in inputs]
    made = [(spec.shape, str(spec.dtype)) for spec in outputs]
    function = _function(name, body, [*given, *made]).with_attr("op_pattern", OPAQUE).without_attr("global_symbol")
    types = [relax.TensorType(shape, dtype) for shape, dtype in made]
    called = builder.emit(relax.call_tir(builder.add_func(function, name), list(inputs),
                                         types[0] if len(types) == 1 else types))
    if len(types) == 1:
        return [called]
    return [builder.emit(relax.TupleGetItem(called, position)) for position in range(len(types))]


def _function(name: str, body: Callable[..., None], tensors: list[tuple[tuple[int, ...], str]]) -> Any:
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name(name)
            T.func_attr({"tirx.noalias": True})
            arguments = [T.arg(f"tensor_{position}", T.Buffer(shape, dtype))
                         for position, (shape, dtype) in enumerate(tensors)]
            flat: list[Buffer] = [T.decl_buffer((math.prod(shape),), dtype, data=buffer.data)
                                  for buffer, (shape, dtype) in zip(arguments, tensors, strict=True)]
            body(*flat)
        return as_loops(builder.get())
