"""MaxPool where no kernel of ours takes it: of volumes, of other types, and where it tells where each maximum stood.

TVM's forgets what stood before a NaN, and finds nothing smaller than the smallest finite number.
"""

from __future__ import annotations

import math
from functools import partial, reduce
from itertools import product

import numpy as np
from tvm import relax, te, tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr
from onexn_plugins.tvm_backend.lowering.operators.extremes import reducer, worst
from onexn_plugins.tvm_backend.lowering.operators.function import call
from onexn_plugins.tvm_backend.lowering.operators.layout import coordinates, is_inside, strides
from onexn_plugins.tvm_backend.reading.graph import Graph, Node, TensorSpec


def max_pool(builder: relax.BlockBuilder, graph: Graph, node: Node,
             inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """Places count through the whole input, row after row, or column after column (storage_order 1)."""
    if len(node.outputs) < 2:
        values = partial(_values, node, graph.shape(node.output))
        return [builder.emit_te(values, inputs[0], primfunc_name_hint="max_pool")]
    spec, shape = graph.specs[node.output], graph.shape(node.inputs[0])
    image, pooled = shape[2:], spec.shape[2:]
    by_column = bool(node.attributes.get("storage_order", 0))
    floating = np.issubdtype(spec.dtype, np.floating)

    def body(x: Buffer, y: Buffer, places: Buffer) -> None:
        best = T.alloc_buffer((1,), str(spec.dtype), scope="global")
        where = T.alloc_buffer((1,), "int32", scope="global")
        with T.serial(0, shape[0] * shape[1]) as plane, T.serial(0, math.prod(pooled)) as pixel:
            T.buffer_store(best, worst("max", str(spec.dtype)), [0])
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


def _values(node: Node, shape: tuple[int, ...], x: te.Tensor) -> te.Tensor:
    """The maxima alone, of an image that is padded first."""
    kernel, begins, step, spread = _window(node, len(shape) - 2)
    image = [int(size) for size in x.shape[2:]]
    reach = [(count - 1) * stride + (taps - 1) * gap + 1
             for count, stride, taps, gap in zip(shape[2:], step, kernel, spread, strict=True)]

    def padded(*position: tirx.Var) -> tirx.Expr:
        at = [place - begin for place, begin in zip(position[2:], begins, strict=True)]
        inside = [is_inside(place, size) for place, size in zip(at, image, strict=True)]
        return tirx.if_then_else(reduce(tirx.And, inside), x[(*position[:2], *at)], worst("max", str(x.dtype)))

    source = te.compute((*x.shape[:2], *reach), padded, "padded") if any(begins) or reach != image else x
    taps = [te.reduce_axis((0, count), f"tap{axis}") for axis, count in enumerate(kernel)]

    def largest(*position: tirx.Var) -> tirx.Expr:
        at = [place * stride + tap * gap for place, stride, tap, gap in zip(position[2:], step, taps, spread,
                                                                            strict=True)]
        return reducer("max", str(x.dtype))(source[(*position[:2], *at)], axis=taps)

    return te.compute(shape, largest, "max_pool")


def _window(node: Node, axes: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """Taps, padding before the image, strides and dilations."""
    step, spread = (list(node.attributes.get(name, [1] * axes)) for name in ("strides", "dilations"))
    return list(node.attributes["kernel_shape"]), list(node.attributes.get("pads", [0] * axes)[:axes]), step, spread


def _taps(node: Node, pixel: list[Expr], image: tuple[int, ...]) -> list[tuple[list[Expr], Expr]]:
    """Each element of a window, and whether it is one of the image's."""
    kernel, begins, step, spread = _window(node, len(image))
    taps = []
    for offsets in product(*map(range, kernel)):
        tap = [pixel[axis] * step[axis] - begins[axis] + offsets[axis] * spread[axis] for axis in range(len(image))]
        inside: Expr = tirx.const(1, "bool")
        for index, size in zip(tap, image, strict=True):
            inside = tirx.And(inside, is_inside(index, size))
        taps.append((tap, inside))
    return taps
