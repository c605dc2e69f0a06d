"""Normalisation."""

from __future__ import annotations

from functools import partial
from random import Random

import numpy as np

from benchmarks.fuzz.networks.operators.made import Made, Maker, Shape, any_axis, array


def batch_norm(random: Random, shape: Shape) -> Made | None:
    if len(shape) < 2:
        return None
    channels = shape[1]
    parameters = [array(random, channels) for _ in range(3)]
    return Made("BatchNormalization", {"epsilon": random.choice([1e-5, 1e-3])},
                [*parameters, np.abs(array(random, channels)) + np.float32(0.1)])


def layer_norm(op: str, random: Random, shape: Shape) -> Made | None:
    axis = any_axis(random, shape)
    if axis is None:
        return None
    sizes = shape[axis:]
    biases = [[], [array(random, *sizes)]] if op == "LayerNormalization" else [[]]
    return Made(op, {"axis": axis}, [array(random, *sizes), *random.choice(biases)])


def instance_norm(random: Random, shape: Shape) -> Made | None:
    if len(shape) < 3:
        return None
    return Made("InstanceNormalization", {"epsilon": 1e-3}, [array(random, shape[1]), array(random, shape[1])])


def group_norm(random: Random, shape: Shape) -> Made | None:
    if len(shape) < 3:
        return None
    groups = random.choice([size for size in range(1, shape[1] + 1) if shape[1] % size == 0] or [1])
    return Made("GroupNormalization", {"num_groups": groups, "epsilon": 1e-3},
                [array(random, shape[1]), array(random, shape[1])])


def softmax(op: str, random: Random, shape: Shape) -> Made | None:
    axis = any_axis(random, shape)
    return None if axis is None else Made(op, {"axis": axis})


def lp_norm(random: Random, shape: Shape) -> Made | None:
    axis = any_axis(random, shape)
    return None if axis is None else Made("LpNormalization", {"axis": axis, "p": random.choice([1, 2])})


def lrn(random: Random, shape: Shape) -> Made | None:
    return Made("LRN", {"size": random.choice([1, 3, 5])}) if len(shape) > 2 else None


def mean_variance(random: Random, shape: Shape) -> Made | None:
    if not shape:
        return None
    return Made("MeanVarianceNormalization", {"axes": random.sample(range(len(shape)), random.randint(1, len(shape)))})


MAKERS: list[Maker] = [
    batch_norm, batch_norm, instance_norm, group_norm, lp_norm, lrn, mean_variance,
    *(partial(layer_norm, op) for op in ("LayerNormalization", "RMSNormalization")),
    *(partial(softmax, op) for op in ("Softmax", "LogSoftmax", "Hardmax")),
]
