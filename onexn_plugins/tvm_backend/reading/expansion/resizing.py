"""Resize of some axes as one of all axes, and a kept aspect ratio as the scale that it comes to."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from onexn_plugins.tvm_backend.reading.graph import Graph, Node

_STRETCH = "stretch"


def all_axes(graph: Graph, node: Node) -> Iterable[Node] | None:
    attributes = dict(node.attributes)
    shape = graph.shape(node.inputs[0])
    axes = [axis % len(shape) for axis in attributes.pop("axes", range(len(shape)))]
    policy = node.text("keep_aspect_ratio_policy", _STRETCH)
    attributes.pop("keep_aspect_ratio_policy", None)
    roi, scales, sizes = (_given(graph, node, position) for position in (1, 2, 3))
    unknown = any(node.input(position) and node.input(position) not in graph.constants for position in (1, 2, 3))
    if attributes.keys() == node.attributes.keys() or unknown:
        return None
    if sizes is not None and policy != _STRETCH:
        scales, sizes = _kept_ratio([shape[axis] for axis in axes], sizes, policy)
    inputs = [node.inputs[0], *(
        "" if values is None else graph.add_constant(values, name) for name, values in (
            ("roi", _with_others(roi, axes, np.repeat(np.array([0, 1], np.float32), len(shape)))),
            ("scales", _with_others(scales, axes, np.ones(len(shape), np.float32))),
            ("sizes", _with_others(sizes, axes, np.array(shape, np.int64)))))]
    while not inputs[-1]:
        inputs.pop()
    return [Node.make("Resize", inputs, node.outputs, node.name, **attributes)]


def _given(graph: Graph, node: Node, position: int) -> np.ndarray | None:
    values = graph.constant(node, position)
    return None if values is None or values.size == 0 else values


def _kept_ratio(shape: list[int], sizes: np.ndarray, policy: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The one scale of every axis, where it makes the sizes that the standard rounds to; else those sizes."""
    ratios = [size / before for size, before in zip(sizes.tolist(), shape, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    rounded = [math.floor(scale * before + 0.5) for before in shape]
    scales = np.full(len(shape), scale, np.float32)
    if [math.floor(float(scales[0]) * before) for before in shape] == rounded:
        return scales, None
    return None, np.array(rounded, np.int64)


def _with_others(values: np.ndarray | None, axes: list[int], others: np.ndarray) -> np.ndarray | None:
    """`others` with the values of these axes; a region has two per axis, all beginnings first."""
    if values is None:
        return None
    complete, per_axis = others.copy(), len(values) // len(axes)
    for part in range(per_axis):
        for position, axis in enumerate(axes):
            complete[part * (len(others) // per_axis) + axis] = values[part * len(axes) + position]
    return complete
