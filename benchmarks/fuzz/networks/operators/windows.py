"""Convolutions, pools and resizing."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import numpy as np

from benchmarks.fuzz.networks.operators.made import Made, Maker, Shape, array, floats, plain


def _padded(random: Random, attributes: dict[str, Any], axes: int, most: int = 2) -> None:
    if random.random() < 0.2:
        attributes["auto_pad"] = _rule(random, attributes)
    else:
        attributes["pads"] = [random.randint(0, most) for _ in range(2 * axes)]


def _rule(random: Random, attributes: dict[str, Any]) -> str:
    """"SAME" only where all agree on it: strides beyond a window's reach pad by less than nothing in onnxruntime."""
    agreed = all(taps >= stride for taps, stride in zip(attributes["kernel_shape"], attributes["strides"], strict=True))
    return random.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]) if agreed else "VALID"


def conv(random: Random, shape: Shape) -> Made | None:
    if len(shape) not in (3, 4, 5):
        return None
    axes, channels = len(shape) - 2, shape[1]
    groups = random.choice([1, 1, channels, *(g for g in (2, 3) if channels % g == 0)]) or 1
    outs = groups * random.randint(1, 6)
    kernel = [random.randint(1, max(1, min(4, size + 1))) for size in shape[2:]]
    weight = array(random, outs, channels // groups, *kernel)
    if random.random() < 0.5:
        weight[random.randrange(outs)::2] = 0
    elif random.random() < 0.5:
        weight[:, np.random.default_rng(random.getrandbits(32)).random(weight.shape[1]) < 0.6] = 0
    attributes: dict[str, Any] = {"group": groups, "kernel_shape": kernel}
    attributes["strides"] = [random.randint(1, 3) for _ in range(axes)]
    attributes["dilations"] = [random.choice([1, 1, 2, 5]) for _ in range(axes)]
    _padded(random, attributes, axes, random.choice([2, 2, 6]))
    return Made("Conv", attributes, [weight, *([array(random, outs)] if random.random() < 0.7 else [])])


def conv_transpose(random: Random, shape: Shape) -> Made | None:
    if len(shape) not in (3, 4, 5):
        return None
    axes, channels = len(shape) - 2, shape[1]
    groups = random.choice([1, 1, channels, *(g for g in (2, 3) if channels % g == 0)]) or 1
    kernel, outs = [random.randint(1, 4) for _ in range(axes)], random.randint(1, 5)
    weight = array(random, channels, outs, *kernel)
    if random.random() < 0.5:
        weight[:, random.randrange(outs)::2] = 0
    attributes: dict[str, Any] = {"strides": [random.randint(1, 3) for _ in range(axes)], "group": groups,
                                  "kernel_shape": kernel, "dilations": [random.choice([1, 1, 2]) for _ in range(axes)]}
    if random.random() < 0.2:
        attributes["output_shape"] = [size * stride for size, stride in zip(shape[2:], attributes["strides"],
                                                                            strict=True)]
    else:
        _padded(random, attributes, axes)
        if not attributes.get("auto_pad", "").startswith("SAME"):  # which onnxruntime takes as padding to cut off
            attributes["output_padding"] = [random.randint(0, stride - 1) for stride in attributes["strides"]]
    bias = [array(random, outs * groups)] if random.random() < 0.5 else []
    return Made("ConvTranspose", attributes, [weight, *bias])


def pool(op: str, random: Random, shape: Shape) -> Made | None:
    if len(shape) not in (3, 4, 5):
        return None
    axes = len(shape) - 2
    kernel = [random.randint(1, max(1, min(4, size))) for size in shape[2:]]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": [random.randint(1, 3) for _ in range(axes)]}
    if random.random() < 0.2:
        attributes["auto_pad"] = _rule(random, attributes)
    else:
        attributes["pads"] = [random.randint(0, max(0, (kernel[axis % axes]) // 2)) for axis in range(2 * axes)]
    if random.random() < 0.5:
        attributes["ceil_mode"] = random.randint(0, 1)
    # onnxruntime forgets the dilation where it pads by a rule.
    if random.random() < 0.3 and not attributes.get("auto_pad", "").startswith("SAME"):
        attributes["dilations"] = [random.randint(1, 2 if 2 * taps - 1 <= size else 1)
                                   for taps, size in zip(kernel, shape[2:], strict=True)]
    if op == "AveragePool":
        attributes["count_include_pad"] = random.randint(0, 1)
    if op == "LpPool":
        attributes["p"] = random.choice([1, 2, 3])
    if op == "MaxPool" and random.random() < 0.2:
        attributes["storage_order"] = random.randint(0, 1)
        return Made(op, attributes, outputs=2)
    return Made(op, attributes)


def resize(random: Random, shape: Shape) -> Made | None:
    if len(shape) not in (3, 4, 5):
        return None
    mode = random.choice(["nearest", "linear", "cubic"])
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": random.choice(
        ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"])}
    if mode == "nearest":
        attributes["nearest_mode"] = random.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    elif random.random() < 0.2:
        attributes["antialias"] = 1
    if mode == "cubic" and random.random() < 0.5:
        attributes |= {"cubic_coeff_a": random.choice([-0.5, -0.75]), "exclude_outside": random.randint(0, 1)}
    axes = len(shape) - 2
    partly = random.random() < 0.2
    if partly:
        attributes["axes"] = random.sample(range(2, len(shape)), axes) if random.random() < 0.5 else [len(shape) - 1]
    named = len(attributes["axes"]) if partly else axes
    if random.random() < 0.5:
        scales = [random.choice([0.4, 0.5, 0.6, 1.0, 1.3, 1.5, 2.0, 3.0]) for _ in range(named)]
        return Made("Resize", attributes, ["", floats(scales if partly else [1.0, 1.0, *scales])])
    sizes = [random.randint(1, 12) for _ in range(named)]
    if random.random() < 0.2:
        attributes["keep_aspect_ratio_policy"] = random.choice(["not_larger", "not_smaller", "stretch"])
    return Made("Resize", attributes, ["", "", np.array(sizes if partly else [*shape[:2], *sizes])])


def upsample(random: Random, shape: Shape) -> Made | None:
    """Of opset 9."""
    if len(shape) != 4:
        return None
    return Made("Upsample", {"mode": random.choice(["nearest", "linear"])},
                [floats([1.0, 1.0, *(random.choice([1.0, 2.0, 3.0]) for _ in range(2))])])


def grid_sample(random: Random, shape: Shape) -> Made | None:
    if len(shape) != 4:
        return None
    grid = array(random, shape[0], random.randint(1, 6), random.randint(1, 6), 2)
    return Made("GridSample", {"mode": random.choice(["linear", "nearest", "cubic", "bilinear", "bicubic"]),
                               "padding_mode": random.choice(["zeros", "border", "reflection"]),
                               "align_corners": random.randint(0, 1)}, [grid])


MAKERS: list[Maker] = [
    conv, conv, conv, conv, conv, conv_transpose, conv_transpose, resize, resize, resize, upsample, grid_sample,
    *(partial(pool, op) for op in ("MaxPool", "MaxPool", "AveragePool", "AveragePool", "LpPool")),
    *(partial(plain, op) for op in ("GlobalAveragePool", "GlobalMaxPool")),
]
