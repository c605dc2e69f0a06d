"""Resize: along one axis after the other, each output is a sum of a few inputs with weights known when compiling.

TVM takes the ratio of sizes for the scale, which differs as soon as scale × size is no integer. Here coordinates come
from the scale that the file states, in float32 as torch and onnxruntime compute them: which pixel is the nearest one
depends on their rounding. Definitions: ONNX's operator documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from tvm import relax, te, tirx

from onexn_plugins.tvm_backend.reading.graph import Graph, Node

# Sums of so few taps are written out.
_MOST_UNROLLED = 4


@dataclass(frozen=True)
class Axis:
    """How one axis is resized.

    Attributes:
        size, out_size: before and after.
        scale: as the file states it.
        crop: (start, end) as shares of the axis, of the part that is resized (tf_crop_and_resize).
    """

    size: int
    out_size: int
    scale: np.float32
    crop: tuple[float, float] = (0.0, 1.0)


def resize(builder: relax.BlockBuilder, graph: Graph, node: Node,
           inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """Every mode and attribute, where scales or sizes are known; whole numbers where nothing is summed."""
    value, spec = inputs[0], graph.specs[node.output]
    axes = _axes(graph, node)
    floating = np.issubdtype(spec.dtype, np.floating)
    if axes is None or (node.text("mode", "nearest") != "nearest" and not floating):
        return None
    weight_type = spec.dtype if floating else np.dtype(np.float32)
    beyond = float(node.attributes.get("extrapolation_value", 0.0))
    crops = node.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    # Axes that shrink first, the last one first of the others: rows are then made from whole rows.
    for place in sorted(range(len(axes)), key=lambda place: (axes[place].out_size >= axes[place].size, -place)):
        axis = axes[place]
        x = coordinates(node, axis)
        places, factors = taps(node, axis, x)
        outside = (x < 0) | (x > axis.size - 1) if crops else np.zeros(axis.out_size, bool)
        if not outside.any() and np.array_equal(places, np.arange(axis.size)[:, None]):
            continue
        constants = list(map(relax.const, (places, factors.astype(weight_type), outside.astype(np.int8))))
        emit = partial(_along, place, floating, beyond if outside.any() else None)
        value = builder.emit_te(emit, value, *constants, primfunc_name_hint="resize")
    return [builder.emit(value)]


def _axes(graph: Graph, node: Node) -> list[Axis] | None:
    """All axes of the tensor; None where what decides them is known at run time only."""
    before, after = graph.shape(node.inputs[0]), graph.shape(node.output)
    named = [axis % len(before) for axis in node.attributes.get("axes", range(len(before)))]
    scales, sizes, crop = graph.constant(node, 2), graph.constant(node, 3), graph.constant(node, 1)
    if scales is None and sizes is None:
        return None
    ratios = np.ones(len(before), np.float32)
    if scales is not None and scales.size:
        ratios[named] = scales
    elif sizes is not None:
        shares = sizes.astype(np.float32) / np.array([before[axis] for axis in named], np.float32)
        policy = node.text("keep_aspect_ratio_policy", "stretch")
        ratios[named] = shares if policy == "stretch" else shares.min() if policy == "not_larger" else shares.max()
    crops = [(0.0, 1.0)] * len(before)
    if node.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        if crop is None:
            return None
        for place, axis in enumerate(named):
            crops[axis] = (float(crop[place]), float(crop[place + len(named)]))
    return [Axis(*values) for values in zip(before, after, ratios, crops, strict=True)]


def coordinates(node: Node, axis: Axis) -> np.ndarray:
    """Where each output lies on the input's axis, float32 [out_size]."""
    one, half, x = np.float32(1), np.float32(0.5), np.arange(axis.out_size, dtype=np.float32)
    mode, last, scale = node.text("coordinate_transformation_mode", "half_pixel"), np.float32(axis.size - 1), axis.scale
    if scale == 1 and axis.size == axis.out_size and mode != "tf_crop_and_resize":
        return x
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        return x * last / np.float32(axis.out_size - 1) if axis.out_size > 1 else x
    if mode == "tf_half_pixel_for_nn":
        return (x + half) / scale
    if mode == "pytorch_half_pixel" and axis.out_size == 1:
        return x
    if mode == "tf_crop_and_resize":
        start, end = map(np.float32, axis.crop)
        if axis.out_size == 1:
            return half * (start + end) * last + x
        return start * last + x * (end - start) * last / np.float32(axis.out_size - 1)
    centred = (x + half) / scale - half
    if mode == "half_pixel_symmetric":
        share = np.float32(axis.out_size) / (scale * np.float32(axis.size))
        return np.float32(axis.size / 2) * (one - share) + centred
    return centred  # half_pixel, pytorch_half_pixel


def taps(node: Node, axis: Axis, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which inputs an output takes and how much of each, int32 and float64 [out_size, taps]; spare taps weigh 0."""
    mode, size = node.text("mode", "nearest"), axis.size
    if mode == "nearest":
        nearest = np.clip(_nearest(x, node.text("nearest_mode", "round_prefer_floor")), 0, size - 1)
        return nearest[:, None].astype(np.int32), np.ones((axis.out_size, 1))
    # Smaller images see a wider part of the input through the same filter.
    stretch = min(float(axis.scale), 1.0) if node.attributes.get("antialias", 0) else 1.0
    cubic = mode == "cubic"
    reach = int(np.ceil((2 if cubic else 1) / stretch)) + 1
    exact = x.astype(np.float64)[:, None]
    places = np.floor(exact).astype(np.int64) + np.arange(-reach, reach + 1)
    distances = np.abs(places - exact) * stretch
    factors = _cubic(distances, float(node.attributes.get("cubic_coeff_a", -0.75))) if cubic else np.maximum(
        1 - distances, 0)
    if node.attributes.get("exclude_outside", 0):
        factors = factors * ((places >= 0) & (places < size))
    used = np.argsort(factors == 0, axis=1, kind="stable")[:, :int((factors != 0).sum(1).max())]
    places, factors = (np.take_along_axis(values, used, 1) for values in (places, factors))
    return np.clip(places, 0, size - 1).astype(np.int32), factors / factors.sum(1, keepdims=True)


def _nearest(x: np.ndarray, mode: str) -> np.ndarray:
    """The input that is the nearest one."""
    if mode == "floor":
        return np.floor(x).astype(np.int64)
    if mode == "ceil":
        return np.ceil(x).astype(np.int64)
    between = x - np.floor(x)
    up = between >= 0.5 if mode == "round_prefer_ceil" else between > 0.5
    return np.floor(x).astype(np.int64) + up


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _along(place: int, weighted: bool, beyond: float | None, x: te.Tensor, indices: te.Tensor, factors: te.Tensor,
           outside: te.Tensor) -> te.Tensor:
    """One axis resized. Where there is one tap of all of an input, it is copied."""
    count = int(indices.shape[1])

    def tap(position: tuple[tirx.Var, ...], number: tirx.Expr | int) -> tirx.Expr:
        at = position[place]
        value = x[(*position[:place], indices[at, number], *position[place + 1:])]
        return value * factors[at, number] if weighted and count > 1 else value

    shape = [*x.shape[:place], indices.shape[0], *x.shape[place + 1:]]
    if count > _MOST_UNROLLED:
        number = te.reduce_axis((0, count), "tap")
        total = te.compute(shape, lambda *position: te.sum(tap(position, number), number), "resized")
    else:
        total = te.compute(shape, lambda *position: sum((tap(position, each) for each in range(1, count)),
                                                        tap(position, 0)), "resized")
    if beyond is None:
        return total
    return te.compute(shape, lambda *position: tirx.Select(
        outside[position[place]] != 0, tirx.const(beyond, x.dtype), total(*position)), "cropped")
