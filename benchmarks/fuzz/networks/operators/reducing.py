"""What makes one number of many, and what orders them."""

from __future__ import annotations

from functools import partial
from random import Random

import numpy as np

from benchmarks.fuzz.networks.operators.made import Made, Maker, Shape, any_axis, some_axes


def reduce(op: str, random: Random, shape: Shape) -> Made:
    """With axes as an attribute or an input, whichever the opset has; without any, it reduces all or nothing."""
    attributes = {"keepdims": random.randint(0, 1)} if random.random() < 0.8 else {}
    if not shape or random.random() < 0.2:
        none: list[list[np.ndarray | str]] = [[], [np.zeros(0, np.int64)], [""]]
        return Made(op, attributes | ({"noop_with_empty_axes": random.randint(0, 1)} if random.random() < 0.5 else {}),
                    random.choice(none))
    axes = some_axes(random, shape)
    if random.random() < 0.3:
        return Made(op, attributes | {"axes": axes})
    return Made(op, attributes, [np.array(axes)])


def arg(op: str, random: Random, shape: Shape) -> Made | None:
    axis = any_axis(random, shape)
    if axis is None:
        return None
    return Made(op, {"axis": axis, "keepdims": random.randint(0, 1), "select_last_index": random.randint(0, 1)})


def top_k(random: Random, shape: Shape) -> Made | None:
    axis = any_axis(random, shape)
    if axis is None or not shape[axis]:
        return None
    return Made("TopK", {"axis": axis, "largest": random.randint(0, 1), "sorted": 1},
                [np.array([random.randint(1, shape[axis])])],
                random.choice([[True, True], [True, False], [False, True]]))


def cumulative(random: Random, shape: Shape) -> Made | None:
    axis = any_axis(random, shape)
    if axis is None:
        return None
    return Made("CumSum", {"exclusive": random.randint(0, 1), "reverse": random.randint(0, 1)}, [np.array(axis)])


OF_INTEGERS: list[Maker] = [
    *(partial(reduce, op) for op in ("ReduceMax", "ReduceMin", "ReduceSum", "ReduceProd")),
    *(partial(arg, op) for op in ("ArgMax", "ArgMin")), top_k, cumulative,
]
MAKERS: list[Maker] = [
    *OF_INTEGERS, *(partial(reduce, op) for op in ("ReduceMean", "ReduceL1", "ReduceL2", "ReduceLogSum",
                                                   "ReduceLogSumExp", "ReduceSumSquare")),
]
