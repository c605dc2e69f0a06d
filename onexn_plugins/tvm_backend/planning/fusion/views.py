"""Where the elements of a value lie in an earlier one: transposes, slices and reshapes in between are only other ways
to walk over the same memory, which a product takes as well as the moved values.

torch's own views answer which reshapes and slices are: each step is taken on a tensor without data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onexn_plugins.tvm_backend.kernels.matrices import Matrices
from onexn_plugins.tvm_backend.planning.fusion.context import Context
from onexn_plugins.tvm_backend.reading.graph import Graph, Node


class _NoView(Exception):
    """The step moves values."""


@dataclass(frozen=True)
class View:
    """A value as a view of another.

    Attributes:
        source: the other value.
        walk: a tensor without data, with the value's shape, and strides and offset within the source.
        factors: what elements are multiplied by, one after the other.
    """

    source: str
    walk: Tensor
    factors: tuple[float, ...] = ()

    def matrices(self, graph: Graph, batch: Sequence[int]) -> Matrices:
        """Its last two axes, for each place along the axes of a batch that it is repeated over."""
        walk = self.walk.expand(*batch, *self.walk.shape[-2:])
        return Matrices(graph.shape(self.source), tuple(walk.stride()), int(walk.storage_offset()), self.factors)


def view_of(context: Context, name: str) -> View:
    """The value as a view of the earliest one that can be read when it is needed."""
    graph = context.graph
    node = context.maker(name)
    if node is not None and node.op in _STEPS:
        before = next(iter(graph.activations(node)), "")
        if before and context.is_readable(before):
            view = view_of(context, before)
            try:
                return _STEPS[node.op](graph, node, view)
            except (_NoView, RuntimeError, IndexError):  # what torch says where a reshape is no view, or of an index
                pass
    return View(name, torch.empty(graph.shape(name), device="meta"))


def _transposed(graph: Graph, node: Node, view: View) -> View:
    return View(view.source, view.walk.permute(permutation(graph, node)), view.factors)


def permutation(graph: Graph, node: Node) -> tuple[int, ...]:
    """Of a Transpose; without one it turns all axes round."""
    given = node.attributes.get("perm")
    return tuple(given) if given is not None else tuple(reversed(range(len(graph.shape(node.inputs[0])))))


def _reshaped(graph: Graph, node: Node, view: View) -> View:
    return View(view.source, view.walk.view(graph.shape(node.output)), view.factors)


def _sliced(graph: Graph, node: Node, view: View) -> View:
    starts, ends, axes, steps = (graph.constant(node, place) for place in (1, 2, 3, 4))
    if starts is None or ends is None or (node.input(3) and axes is None) or (node.input(4) and steps is None):
        raise _NoView
    walk = view.walk
    places = range(len(starts)) if axes is None else axes.tolist()
    for place, start, end, step in zip(places, starts.tolist(), ends.tolist(),
                                       [1] * len(starts) if steps is None else steps.tolist(), strict=True):
        if step < 1:
            raise _NoView
        taken = range(walk.shape[place])[start:end:step]
        walk = walk[(slice(None),) * (place % walk.dim()) + (slice(taken.start, taken.stop, step),)]
    return View(view.source, walk, view.factors)


def _gathered(graph: Graph, node: Node, view: View) -> View:
    index, axis = graph.constant(node, 1), node.attributes.get("axis", 0)
    if index is None or index.size != 1 or index.ndim > 1 or node.inputs[0] in graph.constants:
        raise _NoView
    walk = view.walk.select(axis, int(index.reshape(())))
    return View(view.source, walk if index.ndim == 0 else walk.unsqueeze(axis), view.factors)


def _scaled(graph: Graph, node: Node, view: View) -> View:
    """By one number, at the value's own shape."""
    constant = next((graph.constants[name] for name in node.inputs if name in graph.constants), None)
    if constant is None or constant.size != 1 or graph.shape(node.output) != tuple(view.walk.shape):
        raise _NoView
    return View(view.source, view.walk, (*view.factors, float(np.float32(constant.reshape(())))))


_STEPS: dict[str, Callable[[Graph, Node, View], View]] = {
    "Transpose": _transposed, "Reshape": _reshaped, "Slice": _sliced, "Gather": _gathered, "Mul": _scaled,
}
