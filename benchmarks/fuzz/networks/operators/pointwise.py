"""One number from the numbers at its place."""

from __future__ import annotations

from functools import partial
from random import Random

import numpy as np

from benchmarks.fuzz.networks.operators.made import (
    NUMBERS,
    OTHER,
    Made,
    Maker,
    Shape,
    array,
    floats,
    number,
    one_of,
    plain,
)


def binary(op: str, random: Random, shape: Shape) -> Made:
    kept = [size if random.random() < 0.6 else 1 for size in shape][random.randint(0, len(shape)):]
    others: list[np.ndarray | str] = [number(random), array(random, *kept), OTHER]
    return Made(op, {}, [random.choice(others)])


def several(op: str, random: Random, shape: Shape) -> Made:
    count = random.randint(0, 3)
    return Made(op, {}, [one_of(random, number(random), array(random, *shape), OTHER) for _ in range(count)])


def clip(random: Random, shape: Shape) -> Made:
    low, high = random.sample([*NUMBERS, -np.inf, np.inf], 2)
    if random.random() < 0.9:
        low, high = sorted((low, high))
    bounds: list[np.ndarray | str] = [floats(low), floats(high)]
    choices: list[list[np.ndarray | str]] = [bounds, bounds[:1], ["", bounds[1]], []]
    return Made("Clip", {}, random.choice(choices))


def old_clip(random: Random, shape: Shape) -> Made:
    """As in opsets before 11."""
    low, high = sorted(random.sample(NUMBERS, 2))
    return Made("Clip", {"min": low, "max": high})


def hard_sigmoid(random: Random, shape: Shape) -> Made:
    return Made("HardSigmoid", {"alpha": random.choice([0.2, 1 / 6, 1.0]), "beta": random.choice([0.5, 0.0, 2.0])})


def slope(op: str, random: Random, shape: Shape) -> Made:
    return Made(op, {"alpha": random.choice([0.01, 0.2, 1.0, -0.5])})


def selu(random: Random, shape: Shape) -> Made:
    return Made("Selu", {"alpha": random.choice([1.0, 1.67]), "gamma": random.choice([1.05, 2.0])})


def prelu(random: Random, shape: Shape) -> Made:
    kept = [size if random.random() < 0.5 else 1 for size in shape][random.randint(0, len(shape)):]
    return Made("PRelu", {}, [array(random, *kept)])


def shrink(random: Random, shape: Shape) -> Made:
    return Made("Shrink", {"lambd": random.choice([0.5, 1.0]), "bias": random.choice([0.0, 0.5, 1.0])})


def gelu(random: Random, shape: Shape) -> Made:
    return Made("Gelu", {"approximate": random.choice(["none", "tanh"])})


def modulo(random: Random, shape: Shape) -> Made:
    return Made("Mod", {"fmod": 1}, [random.choice([floats(1.5), array(random, *shape)])])


UNARY = ("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Erf", "Exp", "Floor",
         "HardSwish", "Identity", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Sinh",
         "Softplus", "Softsign", "Sqrt", "Tan", "Tanh")
MAKERS: list[Maker] = [
    *(partial(plain, op) for op in UNARY),
    *(partial(binary, op) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow") for _ in range(2)),
    *(partial(several, op) for op in ("Max", "Min", "Sum", "Mean")),
    *(partial(slope, op) for op in ("LeakyRelu", "Elu", "ThresholdedRelu", "Celu")), clip, clip, old_clip, hard_sigmoid,
    selu, prelu, shrink, gelu, modulo,
]
