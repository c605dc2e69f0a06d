"""MaxPool, AveragePool and GlobalAveragePool."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onexn_plugins.tvm_backend.kernels.problem import GlobalPool, Pool, Unsupported
from onexn_plugins.tvm_backend.kernels.request import PLAIN, Stage
from onexn_plugins.tvm_backend.planning.fusion.chain import Link, Tail
from onexn_plugins.tvm_backend.planning.fusion.context import Context
from onexn_plugins.tvm_backend.reading.graph import Node


def pool(context: Context, node: Node) -> tuple[Link, ...]:
    """A pool over windows. With ceil_mode the last windows reach beyond the image: more padding says the same."""
    batch, channels, height, width = _image(context, node)
    attributes = node.attributes
    kernel_size = _pair(attributes["kernel_shape"])
    if len(node.outputs) > 1 or attributes.get("storage_order", 0):
        raise Unsupported("positions of the maxima are asked for")
    stride, dilation = _pair(attributes.get("strides", (1,))), _pair(attributes.get("dilations", (1,)))
    pads = attributes.get("pads", (0, 0))
    (top, left), (bottom, right) = _pair(pads[:len(pads) // 2], 0), _pair(pads[len(pads) // 2:], 0)
    beyond = [
        (out - 1) * step + (taps - 1) * gap + 1 - (size + before + after)
        for out, step, taps, gap, size, before, after in zip(
            _pair(context.graph.shape(node.output)[2:]), stride, kernel_size, dilation, (height, width), (top, left),
            (bottom, right), strict=True)
    ]
    average = node.op == "AveragePool"
    counts_padding = average and bool(attributes.get("count_include_pad", 0))
    below, behind = (max(reach, 0) for reach in beyond)
    padding = (top, left, bottom + below, right + behind)
    problem = Pool("average" if average else "max", batch, channels, height, width, kernel_size, stride, padding,
                   dilation, counts_padding, (below, behind))
    return _alone(node, problem)


def global_pool(context: Context, node: Node) -> tuple[Link, ...]:
    """The mean of every channel."""
    return _alone(node, GlobalPool(*_image(context, node)))


def _alone(node: Node, problem: Pool | GlobalPool) -> tuple[Link, ...]:
    return (Link(node, Stage(problem), Tail((), PLAIN, (), node.output)),)


def _image(context: Context, node: Node) -> tuple[int, int, int, int]:
    """(batch, channels, height, width) of what is pooled: a signal is an image of height 1."""
    spec = context.graph.specs[node.inputs[0]]
    if len(spec.shape) not in (3, 4) or spec.dtype != np.float32:
        raise Unsupported("only float32 images and signals have kernels")
    batch, channels, *sizes = spec.shape
    return batch, channels, *_pair(sizes)


def _pair(values: Sequence[int], vertical: int = 1) -> tuple[int, int]:
    """(vertical, horizontal): an image's two numbers, or a signal's one behind that of its height."""
    return (values[0], values[1]) if len(values) == 2 else (vertical, values[0])
