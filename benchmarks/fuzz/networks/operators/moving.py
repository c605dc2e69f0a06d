"""What moves elements and computes nothing."""

from __future__ import annotations

import math
from functools import partial
from random import Random

import numpy as np

from benchmarks.fuzz.networks.operators.made import (
    INTEGERS,
    OTHER,
    Made,
    Maker,
    Shape,
    any_axis,
    array,
    floats,
    some_axes,
    whole,
)


def transpose(random: Random, shape: Shape) -> Made:
    permuted = shape and random.random() < 0.9
    return Made("Transpose", {"perm": random.sample(range(len(shape)), len(shape))} if permuted else {})


def reshape(random: Random, shape: Shape) -> Made:
    if not shape:
        return Made("Reshape", {}, [np.array(random.choice([[1], [1, 1], [-1]]))])
    first = random.randint(1, len(shape))
    targets = [[*shape[:first - 1], -1], [math.prod(shape[:first]), *shape[first:]], [0] * first + [-1],
               [-1, *shape[first:]], [*shape[:first], 1, *shape[first:]]]
    return Made("Reshape", {}, [np.array(random.choice(targets))])


def flatten(random: Random, shape: Shape) -> Made:
    return Made("Flatten", {"axis": random.randint(-len(shape), len(shape))})


def squeeze(random: Random, shape: Shape) -> Made | None:
    axes = [axis for axis, size in enumerate(shape) if size == 1]
    if not axes:
        return None
    axes = random.sample(axes, random.randint(1, len(axes)))
    return random.choice([Made("Squeeze"), Made("Squeeze", {"axes": axes}), Made("Squeeze", {}, [np.array(axes)])])


def unsqueeze(random: Random, shape: Shape) -> Made:
    axes = random.sample(range(len(shape) + 2), 2) if random.random() < 0.3 else [random.randint(0, len(shape))]
    return random.choice([Made("Unsqueeze", {"axes": axes}), Made("Unsqueeze", {}, [np.array(axes)])])


def slices(random: Random, shape: Shape) -> Made | None:
    if not shape:
        return None
    axes = some_axes(random, shape)
    starts, ends, steps = [], [], []
    for axis in axes:
        size, step = shape[axis], random.choice([1, 1, 2, 3, -1, -2])
        start = random.choice([0, random.randint(-size - 1, size), size - 1])
        end = random.choice([2**31 - 1, 2**63 - 1, size, random.randint(-size, size)] if step > 0
                            else [-(2**31), -(2**63) + 1, random.randint(-size - 1, size)])
        starts.append(start)
        ends.append(end)
        steps.append(step)
    inputs = [np.array(values) for values in (starts, ends, axes, steps)]
    if random.random() < 0.15:
        return Made("Slice", {"starts": starts, "ends": ends, "axes": axes})
    return Made("Slice", {}, inputs[:random.choice([4, 4, 4, 3])])


def pad(random: Random, shape: Shape) -> Made:
    mode = random.choice(["constant", "reflect", "edge", "wrap"])
    room = [size - 1 if mode == "reflect" else size for size in shape]
    amounts = [random.randint(-1 if random.random() < 0.1 else 0, max(0, min(2, room[axis % len(shape)])))
               for axis in range(2 * len(shape))] if shape else []
    if random.random() < 0.2 and shape and mode != "wrap":
        axes = random.sample(range(len(shape)), random.randint(1, len(shape)))
        some = [amounts[axis + end * len(shape)] for end in range(2) for axis in axes]
        return Made("Pad", {"mode": mode}, [np.array(some, np.int64), floats(0.5) if mode == "constant" else "",
                                            np.array(axes)])
    if random.random() < 0.1:
        return Made("Pad", {"mode": mode, "pads": amounts, "value": 0.5})
    values: list[list[np.ndarray | str]] = [[floats(1.5)], [], [floats(-np.inf)]]
    return Made("Pad", {"mode": mode}, [np.array(amounts, np.int64),
                                        *(random.choice(values) if mode == "constant" else [])])


def concat(random: Random, shape: Shape) -> Made | None:
    axis = any_axis(random, shape)
    if axis is None:
        return None
    other = [random.randint(1, 3) if place == axis % len(shape) else size for place, size in enumerate(shape)]
    return Made("Concat", {"axis": axis}, [array(random, *other) if random.random() < 0.5 else OTHER
                                           for _ in range(random.randint(0, 2))])


def split(random: Random, shape: Shape) -> Made | None:
    axis = any_axis(random, shape)
    if axis is None or shape[axis] < 2:
        return None
    first = random.randint(0 if random.random() < 0.1 else 1, shape[axis] - 1)
    parts = [first, shape[axis] - first]
    return random.choice([Made("Split", {"axis": axis}, [np.array(parts)], 2),
                          Made("Split", {"axis": axis, "split": parts}, [], 2),
                          Made("Split", {"axis": axis, "num_outputs": 2}, [], 2), Made("Split", {"axis": axis}, [], 2)])


def gather(random: Random, shape: Shape) -> Made | None:
    axis = any_axis(random, shape)
    if axis is None or not shape[axis]:
        return None
    index = whole(random, -shape[axis], shape[axis] - 1, *random.choice([(), (1,), (3,), (2, 2), (0,)]))
    return Made("Gather", {"axis": axis}, [index if random.random() < 0.7 else INTEGERS])


def gather_elements(random: Random, shape: Shape) -> Made | None:
    axis = any_axis(random, shape)
    if axis is None or 0 in shape:
        return None
    sizes = [random.randint(1, size) for size in shape]
    return Made("GatherElements", {"axis": axis}, [whole(random, -shape[axis], shape[axis] - 1, *sizes)])


def gather_nd(random: Random, shape: Shape) -> Made | None:
    if not shape or 0 in shape:
        return None
    depth = random.randint(1, len(shape))
    indices = np.stack([whole(random, -size, size - 1, 3) for size in shape[:depth]], -1)
    return Made("GatherND", {}, [indices])


def scatter_elements(random: Random, shape: Shape) -> Made | None:
    axis = any_axis(random, shape)
    if axis is None or 0 in shape:
        return None
    sizes = [random.randint(1, size) for size in shape]
    mode = random.choice(["none", "add", "mul", "max", "min"])
    index = whole(random, -shape[axis], shape[axis] - 1, *sizes)
    if mode == "none":  # no place twice: which one stays is open
        index = np.argsort(array(random, *shape), axis)[tuple(map(slice, sizes))]
    return Made("ScatterElements", {"axis": axis} | ({"reduction": mode} if mode != "none" else {}),
                [index, array(random, *sizes)])


def scatter_nd(random: Random, shape: Shape) -> Made | None:
    if not shape or 0 in shape:
        return None
    depth, mode = random.randint(1, len(shape)), random.choice(["none", "add", "mul", "max", "min"])
    places = list(np.ndindex(*shape[:depth]))
    chosen = random.sample(places, min(len(places), 3))
    updates = array(random, len(chosen), *shape[depth:])
    return Made("ScatterND", {"reduction": mode} if mode != "none" else {}, [np.array(chosen), updates])


def tile(random: Random, shape: Shape) -> Made:
    return Made("Tile", {}, [np.array([random.choice([1, 1, 2, 3]) for _ in shape], np.int64)])


def expand(random: Random, shape: Shape) -> Made:
    sizes = [random.choice([2, 1]) if size == 1 and random.random() < 0.5 else random.choice([size, size, 1])
             for size in shape]
    return Made("Expand", {}, [np.array([*([2] if random.random() < 0.2 else []), *sizes], np.int64)])


def space(op: str, random: Random, shape: Shape) -> Made | None:
    if len(shape) != 4:
        return None
    modes = [{}, {"mode": "CRD"}, {"mode": "DCR"}] if op == "DepthToSpace" else [{}]
    return Made(op, {"blocksize": random.choice([2, 3]), **random.choice(modes)})


def triangle(random: Random, shape: Shape) -> Made | None:
    if len(shape) < 2:
        return None
    diagonals: list[list[np.ndarray | str]] = [[], [np.array(random.randint(-3, 3))]]
    return Made("Trilu", {"upper": random.randint(0, 1)}, random.choice(diagonals))


def reverse_sequence(random: Random, shape: Shape) -> Made | None:
    if len(shape) < 2 or 0 in shape:
        return None
    time = random.randint(0, 1)
    lengths = whole(random, 1, shape[time], shape[1 - time])
    return Made("ReverseSequence", {"time_axis": time, "batch_axis": 1 - time}, [lengths])


ANY_TYPE: list[Maker] = [transpose, reshape, squeeze, unsqueeze, slices, concat, gather, tile, expand, flatten]
MAKERS: list[Maker] = [
    *ANY_TYPE, pad, pad, split, slices, gather_elements, gather_nd, scatter_elements, scatter_nd, triangle,
    reverse_sequence, *(partial(space, op) for op in ("DepthToSpace", "SpaceToDepth")),
]
