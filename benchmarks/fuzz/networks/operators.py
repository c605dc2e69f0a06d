"""Operators with random attributes, for tensors that there are: what a network is made of.

Each maker is given a random generator and one tensor's shape, and returns the node's operator, attributes and further
inputs: arrays become constants, a shape asks for another float tensor. What onnxruntime refuses is made again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass
class Made:
    """A node to be.

    Attributes:
        op: its operator.
        attributes: of the node.
        others: constants for further inputs, "" for one that is left out, or "other" for an earlier value or constant
            of a shape that fits.
        outputs: how many.
    """

    op: str
    attributes: dict[str, Any] = field(default_factory=dict)
    others: Sequence[np.ndarray | str] = ()
    outputs: int = 1


Maker = Callable[[Random, Shape], "Made | None"]
NUMBERS = (-6.0, -1.0, 0.0, 0.1, 0.5, 1 / 6, 1.0, 3.0, 6.0, 20.0, 100.0, 255.0)


def array(random: Random, *shape: int) -> np.ndarray:
    return np.random.default_rng(random.getrandbits(32)).standard_normal(shape).astype(np.float32)


def floats(values: float | Sequence[float]) -> np.ndarray:
    return np.array(values, np.float32)


def number(random: Random) -> np.ndarray:
    return floats(random.choice(NUMBERS)).reshape(random.choice([(), (1,)]))


def plain(op: str, random: Random, shape: Shape) -> Made:
    return Made(op)


def binary(op: str, random: Random, shape: Shape) -> Made:
    kept = [size if random.random() < 0.6 else 1 for size in shape][random.randint(0, len(shape)):]
    others: list[np.ndarray | str] = [number(random), array(random, *kept), "other"]
    return Made(op, {}, [random.choice(others)])


def clip(random: Random, shape: Shape) -> Made:
    low, high = sorted(random.sample(NUMBERS, 2))
    bounds: list[np.ndarray | str] = [floats(low), floats(high)]
    choices: list[list[np.ndarray | str]] = [bounds, bounds[:1], ["", bounds[1]]]
    return Made("Clip", {}, random.choice(choices))


def hard_sigmoid(random: Random, shape: Shape) -> Made:
    return Made("HardSigmoid", {"alpha": random.choice([0.2, 1 / 6, 1.0]), "beta": random.choice([0.5, 0.0, 2.0])})


def slope(op: str, random: Random, shape: Shape) -> Made:
    return Made(op, {"alpha": random.choice([0.01, 0.2, 1.0, -0.5])})


def conv(random: Random, shape: Shape) -> Made | None:
    if len(shape) not in (3, 4):
        return None
    axes, channels = len(shape) - 2, shape[1]
    groups = random.choice([1, 1, channels, *(g for g in (2, 3) if channels % g == 0)])
    outs = groups * random.randint(1, 6)
    kernel = [random.randint(1, min(4, size)) for size in shape[2:]]
    weight = array(random, outs, channels // groups, *kernel)
    if random.random() < 0.5:
        weight[random.randrange(outs)::2] = 0
    attributes: dict[str, Any] = {"group": groups, "kernel_shape": kernel}
    attributes["strides"] = [random.randint(1, 3) for _ in range(axes)]
    attributes["dilations"] = [random.choice([1, 1, 2]) for _ in range(axes)]
    if random.random() < 0.2:
        attributes["auto_pad"] = random.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    else:
        attributes["pads"] = [random.randint(0, 2) for _ in range(2 * axes)]
    return Made("Conv", attributes, [weight, *([array(random, outs)] if random.random() < 0.7 else [])])


def conv_transpose(random: Random, shape: Shape) -> Made | None:
    if len(shape) != 4:
        return None
    kernel = [random.randint(1, 4) for _ in range(2)]
    attributes = {"strides": [random.randint(1, 2) for _ in range(2)], "pads": [random.randint(0, 1) for _ in range(4)],
                  "kernel_shape": kernel}
    return Made("ConvTranspose", attributes, [array(random, shape[1], random.randint(1, 4), *kernel)])


def linear(random: Random, shape: Shape) -> Made:
    if len(shape) == 2 and random.random() < 0.6:
        turned, outs = random.randint(0, 1), random.randint(1, 20)
        weight = array(random, *((outs, shape[1]) if turned else (shape[1], outs)))
        biases: list[list[np.ndarray]] = [[], [array(random, outs)], [array(random, 1, outs)],
                                          [array(random, shape[0], 1)], [number(random)]]
        return Made("Gemm", {"transB": turned, "alpha": random.choice([1.0, 0.5]), "beta": random.choice([1.0, 2.0])},
                    [weight, *random.choice(biases)])
    return Made("MatMul", {}, [array(random, shape[-1], random.randint(1, 20))])


def pool(op: str, random: Random, shape: Shape) -> Made | None:
    if len(shape) not in (3, 4):
        return None
    axes = len(shape) - 2
    kernel = [random.randint(1, min(4, size)) for size in shape[2:]]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": [random.randint(1, 3) for _ in range(axes)]}
    attributes["pads"] = [random.randint(0, max(0, (kernel[axis % axes]) // 2)) for axis in range(2 * axes)]
    attributes["ceil_mode"] = random.randint(0, 1)
    if op == "AveragePool":
        attributes["count_include_pad"] = random.randint(0, 1)
    return Made(op, attributes)


def resize(random: Random, shape: Shape) -> Made | None:
    if len(shape) != 4:
        return None
    mode = random.choice(["nearest", "linear", "cubic"])
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": random.choice(
        ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])}
    if mode == "nearest":
        attributes["nearest_mode"] = random.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    if random.random() < 0.5:
        scales = [1.0, 1.0, *(random.choice([0.4, 0.5, 0.6, 1.0, 1.3, 1.5, 2.0, 3.0]) for _ in range(2))]
        return Made("Resize", attributes, ["", floats(scales)])
    return Made("Resize", attributes, ["", "", np.array([*shape[:2], random.randint(1, 12), random.randint(1, 12)])])


def batch_norm(random: Random, shape: Shape) -> Made | None:
    if len(shape) < 2:
        return None
    channels = shape[1]
    parameters = [array(random, channels) for _ in range(3)]
    return Made("BatchNormalization", {"epsilon": random.choice([1e-5, 1e-3])},
                [*parameters, np.abs(array(random, channels)) + np.float32(0.1)])


def layer_norm(random: Random, shape: Shape) -> Made:
    return Made("LayerNormalization", {"axis": -1}, [array(random, shape[-1]), array(random, shape[-1])])


def softmax(op: str, random: Random, shape: Shape) -> Made:
    return Made(op, {"axis": random.randrange(-len(shape), len(shape))})


def reduce(op: str, random: Random, shape: Shape) -> Made:
    axes = random.sample(range(len(shape)), random.randint(1, len(shape)))
    return Made(op, {"keepdims": random.randint(0, 1)}, [np.array(axes)])


def transpose(random: Random, shape: Shape) -> Made:
    return Made("Transpose", {"perm": random.sample(range(len(shape)), len(shape))})


def reshape(random: Random, shape: Shape) -> Made:
    first = random.randint(1, len(shape))
    return Made("Reshape", {}, [np.array([*shape[:first - 1], -1] if random.random() < 0.5 else
                                         [math.prod(shape[:first]), *shape[first:]])])


def slices(random: Random, shape: Shape) -> Made:
    axis = random.randrange(len(shape))
    start, step = random.randrange(shape[axis]), random.choice([1, 1, 2, -1])
    end = random.choice([2**31 - 1, shape[axis]]) if step > 0 else -(2**31)
    return Made("Slice", {}, [np.array([value]) for value in (start, end, axis, step)])


def pad(random: Random, shape: Shape) -> Made:
    mode = random.choice(["constant", "reflect", "edge", "wrap"])
    room = [size - 1 if mode == "reflect" else size for size in shape]
    amounts = [random.randint(0, min(2, room[axis % len(shape)])) for axis in range(2 * len(shape))]
    return Made("Pad", {"mode": mode}, [np.array(amounts)] + ([floats(1.5)] if mode == "constant" else []))


def concat(random: Random, shape: Shape) -> Made:
    axis = random.randrange(len(shape))
    other = [random.randint(1, 3) if place == axis else size for place, size in enumerate(shape)]
    return Made("Concat", {"axis": axis}, [array(random, *other) if random.random() < 0.5 else "other"])


def split(random: Random, shape: Shape) -> Made | None:
    axis = random.randrange(len(shape))
    if shape[axis] < 2:
        return None
    first = random.randint(1, shape[axis] - 1)
    return Made("Split", {"axis": axis}, [np.array([first, shape[axis] - first])], outputs=2)


def gather(random: Random, shape: Shape) -> Made:
    axis = random.randrange(len(shape))
    places = [random.randrange(-shape[axis], shape[axis]) for _ in range(random.randint(1, 4))]
    return Made("Gather", {"axis": axis}, [np.array(places)])


def tile(random: Random, shape: Shape) -> Made:
    return Made("Tile", {}, [np.array([random.choice([1, 1, 2, 3]) for _ in shape])])


def expand(random: Random, shape: Shape) -> Made:
    return Made("Expand", {}, [np.array([2 if size == 1 and random.random() < 0.5 else size for size in shape])])


def space(op: str, random: Random, shape: Shape) -> Made | None:
    return Made(op, {"blocksize": random.choice([2, 3])}) if len(shape) == 4 else None


UNARY = ("Abs", "Ceil", "Cos", "Erf", "Exp", "Flatten", "Floor", "HardSwish", "Identity", "Log", "Mish", "Neg",
         "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh")
MAKERS: list[Maker] = [
    *(partial(plain, op) for op in UNARY), *(partial(plain, op) for op in ("GlobalAveragePool", "GlobalMaxPool")),
    *(partial(binary, op) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow") for _ in range(2)),
    *(partial(slope, op) for op in ("LeakyRelu", "Elu", "ThresholdedRelu")), clip, clip, hard_sigmoid,
    conv, conv, conv, conv, conv_transpose, linear, linear, *(partial(pool, op) for op in ("MaxPool", "AveragePool")),
    resize, resize, batch_norm, layer_norm, *(partial(softmax, op) for op in ("Softmax", "LogSoftmax")),
    *(partial(reduce, op) for op in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceL2", "ReduceProd")),
    transpose, reshape, slices, pad, concat, split, gather, tile, expand,
    *(partial(space, op) for op in ("DepthToSpace", "SpaceToDepth")),
]
