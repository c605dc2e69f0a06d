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
        others: further inputs: arrays become constants (floats in the source's type), "" is one that is left out,
            OTHER, INTEGERS and BOOLEANS an earlier value.
        outputs: how many, or which of them are asked for.
        reads_source: whether the source is the first input.
    """

    op: str
    attributes: dict[str, Any] = field(default_factory=dict)
    others: Sequence[np.ndarray | str] = ()
    outputs: int | Sequence[bool] = 1
    reads_source: bool = True


# A random generator and the source's shape; None where the operator takes no such tensor. What onnxruntime refuses is
# drawn again.
Maker = Callable[[Random, Shape], "Made | None"]
NUMBERS = (-6.0, -1.0, 0.0, 0.1, 0.5, 1 / 6, 1.0, 3.0, 6.0, 20.0, 100.0, 255.0)


def array(random: Random, *shape: int) -> np.ndarray:
    return np.random.default_rng(random.getrandbits(32)).standard_normal(shape).astype(np.float32)


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
