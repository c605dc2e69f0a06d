"""Numbers as small whole ones with a scale."""

from __future__ import annotations

from random import Random

import numpy as np

from benchmarks.fuzz.networks.operators.made import Made, Maker, Shape, floats, whole

WHOLE = (np.uint8, np.int8)


def _scale(random: Random, shape: Shape, attributes: dict[str, int], kind: type) -> list[np.ndarray]:
    """Scale and zero point: one, or one for each place along an axis, which goes into the attributes."""
    low, high = (0, 255) if kind is np.uint8 else (-128, 127)
    if not shape or random.random() < 0.5:
        return [floats(random.choice([0.02, 0.5, 1.0])), whole(random, low, high).astype(kind)]
    axis = random.randrange(-len(shape), len(shape))
    attributes["axis"] = axis
    scales = whole(random, 1, 20, shape[axis]).astype(np.float32) / 16
    return [scales, whole(random, low, high, shape[axis]).astype(kind)]


def rounded(random: Random, shape: Shape) -> list[Made]:
    """To whole numbers, and mostly back again."""
    attributes: dict[str, int] = {}
    scale, zero = _scale(random, shape, attributes, random.choice(WHOLE))
    others = [scale, zero] if random.random() < 0.8 else [scale]
    there = Made("QuantizeLinear", attributes, others, keeps_types=True)
    return [there, Made("DequantizeLinear", attributes, others, keeps_types=True)] if random.random() < 0.7 else [there]


def read(random: Random, shape: Shape) -> Made:
    """Whole numbers as floats."""
    attributes: dict[str, int] = {}
    scale, zero = _scale(random, shape, attributes, random.choice(WHOLE))
    return Made("DequantizeLinear", attributes, random.choice([[scale], [scale, zero]]), keeps_types=True)


def dynamic(random: Random, shape: Shape) -> Made:
    return Made("DynamicQuantizeLinear", {}, [], 3)


def weights(random: Random, shape: Shape) -> list[Made] | None:
    """A convolution or product by a constant of whole numbers."""
    if len(shape) < 2 or 0 in shape:
        return None
    attributes: dict[str, int] = {}
    kind = random.choice(WHOLE)
    if len(shape) in (3, 4):
        sizes = (random.choice([4, 8, 9]), shape[1], *(random.choice([1, min(3, size)]) for size in shape[2:]))
    else:
        sizes = (shape[-1], random.choice([3, 8]))
    scale, zero = _scale(random, sizes, attributes, kind)
    constant = whole(random, -100 if kind is np.int8 else 0, 100, *sizes).astype(kind)
    product = Made("Conv" if len(shape) in (3, 4) else "MatMul", {}, ["#0", "#1"], reads_source=False)
    return [Made("DequantizeLinear", attributes, [constant, scale, zero], reads_source=False, keeps_types=True),
            product]


def integer_product(random: Random, shape: Shape) -> Made | None:
    if not shape or 0 in shape:
        return None
    kind = random.choice(WHOLE)
    weight = whole(random, -100 if kind is np.int8 else 0, 100, shape[-1], random.randint(1, 5)).astype(kind)
    zeros: list[list[np.ndarray | str]] = [[], ["", np.array(3, kind)]]
    return Made("MatMulInteger", {}, [weight, *random.choice(zeros)], keeps_types=True)


OF_FLOATS: list[Maker] = [rounded, rounded, dynamic, weights, weights]
OF_INTEGERS: list[Maker] = [read, integer_product]
