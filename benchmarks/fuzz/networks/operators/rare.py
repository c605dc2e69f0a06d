"""Operators of detectors, losses and transformers, and what makes tensors of shapes and types."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import numpy as np

from benchmarks.fuzz.networks.operators.made import (
    OTHER,
    Made,
    Maker,
    Shape,
    any_axis,
    array,
    floats,
    one_of,
    plain,
    some_axes,
    whole,
)


def roi_align(random: Random, shape: Shape) -> Made | None:
    if len(shape) != 4 or 0 in shape:
        return None
    corners = np.sort(whole(random, -2, 10, 3, 2, 2).astype(np.float32), axis=1).reshape(3, 4)
    attributes: dict[str, Any] = {"output_height": random.randint(1, 3), "output_width": random.randint(1, 3),
                                  "mode": random.choice(["avg", "max"]), "sampling_ratio": random.randint(0, 2),
                                  "spatial_scale": random.choice([1.0, 0.5])}
    if random.random() < 0.5:
        attributes["coordinate_transformation_mode"] = random.choice(["half_pixel", "output_half_pixel"])
    return Made("RoiAlign", attributes, [corners, whole(random, 0, shape[0] - 1, 3)])


def affine_grid(random: Random, shape: Shape) -> list[Made] | None:
    """A grid of the standard's, and the pixels at it."""
    if len(shape) != 4 or 0 in shape:
        return None
    size = np.array([*shape[:2], random.randint(1, 5), random.randint(1, 5)])
    return [Made("AffineGrid", {"align_corners": random.randint(0, 1)}, [array(random, shape[0], 2, 3), size],
                 reads_source=False),
            Made("GridSample", {"align_corners": random.randint(0, 1)}, ["#0", "#1"], reads_source=False)]


def cropped(random: Random, shape: Shape) -> Made | None:
    if not shape or 0 in shape:
        return None
    axes = some_axes(random, shape)
    return Made("CenterCropPad", {"axes": axes}, [np.array([random.randint(1, 9) for _ in axes])])


def loss(op: str, random: Random, shape: Shape) -> Made | None:
    if len(shape) < 2 or 0 in shape:
        return None
    attributes: dict[str, Any] = {"reduction": random.choice(["none", "sum", "mean"])}
    if random.random() < 0.3:
        attributes["ignore_index"] = random.randrange(shape[1])
    labels = whole(random, 0, shape[1] - 1, shape[0], *shape[2:])
    weights = [np.abs(array(random, shape[1])) + np.float32(0.1)] if random.random() < 0.4 else []
    return Made(op, attributes, [labels, *weights])


def attention(random: Random, shape: Shape) -> Made | None:
    """Of opset 23: [batch, heads, tokens, channels] of queries, keys and values."""
    if len(shape) != 4 or 0 in shape:
        return None
    attributes: dict[str, Any] = {"is_causal": random.randint(0, 1)}
    if random.random() < 0.3:
        attributes["softcap"] = 2.0
    if random.random() < 0.3:
        attributes["scale"] = 0.3
    mask = [array(random, shape[2], shape[2])] if random.random() < 0.4 else []
    return Made("Attention", attributes, [one_of(random, "@", array(random, *shape)), "@", *mask])


def rotary(random: Random, shape: Shape) -> Made | None:
    if len(shape) != 4 or 0 in shape or shape[3] % 2:
        return None
    angles = array(random, shape[0], shape[2], shape[3] // 2)
    return Made("RotaryEmbedding", {"interleaved": random.randint(0, 1)}, [np.cos(angles), np.sin(angles)])


def training(random: Random, shape: Shape) -> Made | None:
    """Batch normalisation by the batch's own statistics."""
    if len(shape) < 2 or 0 in shape:
        return None
    parameters = [array(random, shape[1]) for _ in range(3)]
    return Made("BatchNormalization", {"training_mode": 1, "momentum": 0.7},
                [*parameters, np.abs(array(random, shape[1]))], 3)


def statistics(random: Random, shape: Shape) -> Made | None:
    """Layer normalisation with mean and deviation."""
    axis = any_axis(random, shape)
    return None if axis is None else Made("LayerNormalization", {"axis": axis}, [array(random, *shape[axis:])],
                                          random.choice([[True, True, True], [True, False, True], [True, True]]))


def dropout(random: Random, shape: Shape) -> Made:
    return Made("Dropout", {}, random.choice([[], [floats(0.3)], [floats(0.3), np.array(False)]]),
                random.choice([[True], [True, True]]))


def eye(random: Random, shape: Shape) -> Made | None:
    if len(shape) != 2:
        return None
    return Made("EyeLike", {"k": random.randint(-2, 2)} | random.choice([{}, {"dtype": 1}, {"dtype": 7}]))


def filled(random: Random, shape: Shape) -> list[Made]:
    """A constant of the source's shape, and the source with it."""
    return [Made("Shape"), Made("ConstantOfShape"), Made("Sub", {}, ["#0"])]


def cast_like(random: Random, shape: Shape) -> Made:
    return Made("CastLike", {}, [one_of(random, OTHER, np.array(1, np.int32), floats(1), np.array(True))],
                keeps_types=True)


def part_of_shape(random: Random, shape: Shape) -> Made | None:
    """Some of its sizes, as opset 15 has it."""
    return Made("Shape", {"start": random.randint(-len(shape), len(shape)), "end": random.randint(-1, len(shape))})


def shift(random: Random, shape: Shape) -> Made:
    return Made("BitShift", {"direction": random.choice(["LEFT", "RIGHT"])}, [whole(random, 0, 7).astype(np.uint8)])


ANY_TYPE: list[Maker] = [dropout, eye, cast_like, part_of_shape, cropped]
MAKERS: list[Maker] = [
    *ANY_TYPE, roi_align, affine_grid, attention, rotary, training, statistics, filled,
    *(partial(loss, op) for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")),
    *(partial(plain, op) for op in ("Swish", "GlobalLpPool")),
]
OF_UNSIGNED: list[Maker] = [shift, partial(plain, "BitwiseNot")]
