"""MaxPool that also tells where each maximum stood. Without the places, kernels of ours pool faster."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from tvm import relax, tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr
from onexn_plugins.tvm_backend.lowering.operators.function import call
from onexn_plugins.tvm_backend.lowering.operators.layout import coordinates, strides
from onexn_plugins.tvm_backend.reading.graph import Graph, Node, TensorSpec


def max_pool(builder: relax.BlockBuilder, graph: Graph, node: Node,
             inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """Places count through the whole input, row after row, or column after column (storage_order 1)."""
    if len(node.outputs) < 2:
        return None
    spec, shape = graph.specs[node.output], graph.shape(node.inputs[0])
    image, pooled = shape[2:], spec.shape[2:]
    by_column = bool(node.attributes.get("storage_order", 0))
    floating = np.issubdtype(spec.dtype, np.floating)
    lowest = -math.inf if floating else int(np.iinfo(spec.dtype).min)

    def body(x: Buffer, y: Buffer, places: Buffer) -> None:
        best = T.alloc_buffer((1,), str(spec.dtype), scope="global")
        where = T.alloc_buffer((1,), "int32", scope="global")
        with T.serial(0, shape[0] * shape[1]) as plane, T.serial(0, math.prod(pooled)) as pixel:
            T.buffer_store(best, tirx.const(lowest, str(spec.dtype)), [0])
            T.buffer_store(where, tirx.const(0, "int32"), [0])
            for tap, inside in _taps(node, coordinates(pixel, pooled), image):
                with T.If(inside), T.Then():
                    at = sum(index * stride for index, stride in zip(tap, strides(image), strict=True))
                    value = T.bind(x[plane * math.prod(image) + at])
                    is_nan = tirx.isnan(value) if floating else tirx.const(0, "bool")
                    with T.If(tirx.Or(value > best[0], is_nan)), T.Then():
                        order = strides(image[::-1])[::-1] if by_column else strides(image)
                        T.buffer_store(best, value, [0])
                        T.buffer_store(where, sum(i * stride for i, stride in zip(tap, order, strict=True)), [0])
            to = plane * math.prod(pooled) + pixel
            T.buffer_store(y, best[0], [to])
            T.buffer_store(places, T.cast(plane * math.prod(image) + where[0], "int64"), [to])

    return call(builder, "max_pool_places", body, inputs, [spec, TensorSpec(spec.shape, np.dtype(np.int64))])


def _taps(node: Node, pixel: list[Expr], image: tuple[int, ...]) -> list[tuple[list[Expr], Expr]]:
    """Each element of a window, and whether it is one of the image's."""
    kernel, axes = node.attributes["kernel_shape"], range(len(image))
    pads = node.attributes.get("pads", [0] * (2 * len(image)))
    step, spread = (node.attributes.get(name, [1] * len(image)) for name in ("strides", "dilations"))
    taps = []
    for offsets in product(*map(range, kernel)):
        tap = [pixel[axis] * step[axis] - pads[axis] + offsets[axis] * spread[axis] for axis in axes]
        inside: Expr = tirx.const(1, "bool")
        for index, size in zip(tap, image, strict=True):
            inside = tirx.And(inside, tirx.And(index >= 0, index < size))
        taps.append((tap, inside))
    return taps
