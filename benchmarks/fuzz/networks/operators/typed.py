"""What turns one type into another, and whole numbers and truth values."""

from __future__ import annotations

from functools import partial
from random import Random

import numpy as np
from onnx import TensorProto

from benchmarks.fuzz.networks.operators.made import (
    BOOLEANS,
    OTHER,
    Made,
    Maker,
    Shape,
    array,
    number,
    one_of,
    plain,
    whole,
)

TYPES = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64,
         TensorProto.INT32, TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL)


def cast(random: Random, shape: Shape) -> Made:
    return Made("Cast", {"to": random.choice(TYPES)})


def compare(op: str, random: Random, shape: Shape) -> Made:
    return Made(op, {}, [one_of(random, number(random), array(random, *shape), OTHER)])


def compare_integers(op: str, random: Random, shape: Shape) -> Made:
    return Made(op, {}, [one_of(random, whole(random, -3, 3), whole(random, 0, 2, *shape), OTHER)])


def integer_binary(op: str, random: Random, shape: Shape) -> Made:
    kept = [size if random.random() < 0.6 else 1 for size in shape][random.randint(0, len(shape)):]
    return Made(op, {}, [one_of(random, whole(random, 1, 5), whole(random, 1, 4, *kept), OTHER)])


def integer_clip(random: Random, shape: Shape) -> Made:
    bounds: list[list[np.ndarray | str]] = [[np.array(-2), np.array(3)], [np.array(0)], ["", np.array(2)]]
    return Made("Clip", {}, random.choice(bounds))


def one_hot(random: Random, shape: Shape) -> Made:
    return Made("OneHot", {"axis": random.choice([-1, 0])},
                [np.array(random.randint(1, 6)), random.choice([array(random, 2), whole(random, -3, 3, 2)])])


def chosen(random: Random, shape: Shape) -> Made:
    """Where, of which the truth values are the source."""
    return Made("Where", {}, [one_of(random, array(random, *shape), number(random), "other:f") for _ in range(2)])


def where(random: Random, shape: Shape) -> Made:
    """Where, of which the truth values are a constant or another value."""
    mask = array(random, *shape) > 0
    return Made("Where", {}, [one_of(random, mask, BOOLEANS), "@", one_of(random, array(random, *shape), OTHER)],
                reads_source=False)


def logic(op: str, random: Random, shape: Shape) -> Made:
    return Made(op, {}, [one_of(random, array(random, *shape) > 0, BOOLEANS)])


def shape_of(random: Random, shape: Shape) -> Made:
    return Made(random.choice(["Shape", "Size"]))


def infinite(random: Random, shape: Shape) -> Made:
    return Made("IsInf", {"detect_negative": random.randint(0, 1), "detect_positive": random.randint(0, 1)})


COMPARED = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
OF_FLOATS: list[Maker] = [
    cast, cast, where, infinite, partial(plain, "IsNaN"), shape_of, *(partial(compare, op) for op in COMPARED),
]
OF_INTEGERS: list[Maker] = [
    cast, cast, cast, integer_clip, one_hot, where, *(partial(plain, op) for op in ("Abs", "Neg", "Sign", "Identity")),
    *(partial(integer_binary, op) for op in ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "Min", "BitwiseAnd",
                                             "BitwiseOr", "BitwiseXor")),
    *(partial(compare_integers, op) for op in COMPARED),
]
OF_UNSIGNED: list[Maker] = [
    cast, cast, cast, where, *(partial(integer_binary, op) for op in ("Add", "Mul", "Div", "Mod", "Max", "Min")),
    *(partial(compare_integers, op) for op in COMPARED),
]
OF_BOOLEANS: list[Maker] = [cast, cast, chosen, chosen, chosen, partial(plain, "Not"),
                            *(partial(logic, op) for op in ("And", "Or", "Xor"))]
