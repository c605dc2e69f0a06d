"""MaxPool, AveragePool and GlobalAveragePool."""

from __future__ import annotations

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
    kernel_size = tuple(attributes["kernel_shape"])
    if len(node.outputs) > 1 or attributes.get("storage_order", 0):
        raise Unsupported("positions of the maxima are asked for")
    stride = tuple(attributes.get("strides", (1, 1)))
    dilation = tuple(attributes.get("dilations", (1, 1)))
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    beyond = [
        (out - 1) * step + (taps - 1) * gap + 1 - (size + before + after)
        for out, step, taps, gap, size, before, after in zip(
            context.graph.shape(node.output)[2:], stride, kernel_size, dilation, (height, width), (top, left),
            (bottom, right), strict=True)
    ]
    average = node.op == "AveragePool"
    counts_padding = average and bool(attributes.get("count_include_pad", 0))
    if counts_padding and max(beyond) > 0:
        raise Unsupported("ceil_mode with count_include_pad: what lies beyond the padding does not count")
    padding = (top, left, bottom + max(beyond[0], 0), right + max(beyond[1], 0))
    problem = Pool("average" if average else "max", batch, channels, height, width, kernel_size, stride, padding,
                   dilation, counts_padding)
    return _alone(node, problem)


def global_pool(context: Context, node: Node) -> tuple[Link, ...]:
    """The mean of every channel."""
    return _alone(node, GlobalPool(*_image(context, node)))


def _alone(node: Node, problem: Pool | GlobalPool) -> tuple[Link, ...]:
    return (Link(node, Stage(problem), Tail((), PLAIN, (), node.output)),)


def _image(context: Context, node: Node) -> tuple[int, int, int, int]:
    spec = context.graph.specs[node.inputs[0]]
    if len(spec.shape) != 4 or spec.dtype != np.float32:
        raise Unsupported("only float32 images have kernels")
    batch, channels, height, width = spec.shape
    return batch, channels, height, width
