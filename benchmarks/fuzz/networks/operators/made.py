"""A node to be, and what random nodes are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

Shape = tuple[int, ...]
# An earlier value or constant: of the source's type, of whole numbers, of truth values.
OTHER, INTEGERS, BOOLEANS = "other", "other:i", "other:b"


@dataclass
class Made:
    """A node to be.

    Attributes:
        op: its operator.
        attributes: of the node. In subgraphs the name "@" stands for the source, "@..." for a name of their own.
        others: further inputs: arrays become constants, "" is one that is left out, OTHER, INTEGERS and BOOLEANS an
            earlier value. In a chain "#0" is what the chain begins with, "#1" what its first node makes, "#1:1" that
            node's second output, "#-1" the source.
        outputs: how many, or which of them are asked for.
        reads_source: whether the source is the first input.
        keeps_types: whether constants keep their types; else floats get the source's.
    """

    op: str
    attributes: dict[str, Any] = field(default_factory=dict)
    others: Sequence[np.ndarray | str] = ()
    outputs: int | Sequence[bool] = 1
    reads_source: bool = True
    keeps_types: bool = False


# A random generator and the source's shape; None where the operator takes no such tensor. What onnxruntime refuses is
# drawn again. Several nodes are a chain, of which each reads what the one before makes.
Maker = Callable[[Random, Shape], "Made | list[Made] | None"]
NUMBERS = (-6.0, -1.0, 0.0, 0.1, 0.5, 1 / 6, 1.0, 3.0, 6.0, 20.0, 100.0, 255.0)


def array(random: Random, *shape: int) -> np.ndarray:
    return np.random.default_rng(random.getrandbits(32)).standard_normal(shape).astype(np.float32)


def pruned(random: Random, *shape: int, axis: int = 0) -> np.ndarray:
    """A weight, of which most blocks of N output channels and one input channel are zero; axis is the outputs'."""
    size, share = random.choice([1, 2, 4, 4, 8, 16, 32]), random.choice([0.2, 0.5, 0.8])
    rows = -(-shape[axis] // size)
    kept = np.random.default_rng(random.getrandbits(32)).random((rows, shape[1 - axis])) < share
    mask = np.repeat(kept, size, 0)[:shape[axis]]
    return array(random, *shape) * (mask.T if axis else mask).reshape(*shape[:2], *(1 for _ in shape[2:]))


def whole(random: Random, low: int, high: int, *shape: int) -> np.ndarray:
    """Whole numbers from low to high, int64."""
    return np.random.default_rng(random.getrandbits(32)).integers(low, high + 1, shape)


def floats(values: float | Sequence[float]) -> np.ndarray:
    return np.array(values, np.float32)


def number(random: Random) -> np.ndarray:
    return floats(random.choice(NUMBERS)).reshape(random.choice([(), (1,)]))


def one_of(random: Random, *inputs: np.ndarray | str) -> np.ndarray | str:
    """One of these further inputs."""
    return random.choice(inputs)


def plain(op: str, random: Random, shape: Shape) -> Made:
    return Made(op)


def any_axis(random: Random, shape: Shape) -> int | None:
    """From the front or from the back; None of a scalar."""
    return random.randrange(-len(shape), len(shape)) if shape else None


def some_axes(random: Random, shape: Shape) -> list[int]:
    axes = random.sample(range(len(shape)), random.randint(1, len(shape)))
    return [axis - len(shape) if random.random() < 0.3 else axis for axis in axes]
