"""Layers with what follows them in networks that people deploy: what is pruned, fused and given kernels."""

from __future__ import annotations

from random import Random

import numpy as np

from benchmarks.fuzz.networks.operators.made import Made, Maker, Shape, array, floats, one_of, pruned

Chain = list[Made]


def follows(random: Random, channels: int, rank: int) -> Chain:
    """Normalisation, activation or nothing, as exporters spell them."""
    def per_channel() -> np.ndarray:
        return array(random, channels, *(1 for _ in range(rank - 2)))

    chains: list[Chain] = [
        [], [Made("Relu")], [Made("Clip", {}, [floats(0), floats(6)])], [Made("HardSwish")], [Made("Tanh")],
        [Made("LeakyRelu", {"alpha": 0.1})], [Made("Sigmoid"), Made("Mul", {}, ["#-2"])],
        [Made("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}), Made("Mul", {}, ["#-2"])],
        [Made("Softplus"), Made("Tanh"), Made("Mul", {}, ["#-3"])],
        [Made("Add", {}, [floats(3)]), Made("Clip", {}, [floats(0), floats(6)]), Made("Mul", {}, ["#-3"]),
         Made("Div", {}, [floats(6)])],
        [Made("Div", {}, [floats(2**0.5)]), Made("Erf"), Made("Add", {}, [floats(1)]), Made("Mul", {}, ["#-4"]),
         Made("Mul", {}, [floats(0.5)])],
        [Made("PRelu", {}, [per_channel()])],
        [Made("Mul", {}, [per_channel()]), Made("Add", {}, [per_channel()])],
        [Made("BatchNormalization", {}, [*(array(random, channels) for _ in range(3)),
                                         np.abs(array(random, channels)) + np.float32(0.1)])],
    ]
    return random.choice(chains) + (random.choice(chains) if random.random() < 0.3 else [])


def convolution(random: Random, shape: Shape, outs: int, kernel: int, stride: int = 1, groups: int = 1,
                dilation: int = 1) -> Made:
    """With "same" padding, of an image or signal [batch, channels, ...]."""
    axes = len(shape) - 2
    weight = pruned(random, outs, shape[1] // groups, *(kernel for _ in range(axes)))
    around = [dilation * (kernel - 1) // 2] * (2 * axes)
    settings = {"group": groups, "pads": around, "strides": [stride] * axes, "dilations": [dilation] * axes}
    if random.random() < 0.7:
        settings["kernel_shape"] = [kernel] * axes
    return Made("Conv", settings, [weight, *([array(random, outs)] if random.random() < 0.6 else [])])


def layer(random: Random, shape: Shape) -> Chain | None:
    """A convolution of an image or signal, with a residual where one fits."""
    if len(shape) not in (3, 4) or 0 in shape:
        return None
    outs = random.choice([shape[1], 4, 12, 16, 32])
    first = convolution(random, shape, outs, random.choice([1, 1, 3, 3, 5, 7]), random.choice([1, 1, 1, 2]),
                        dilation=random.choice([1, 1, 1, 2]))
    residual = [Made("Add", {}, ["#0"])] if random.random() < 0.4 else []
    return [first, *follows(random, outs, len(shape)), *residual, *follows(random, outs, len(shape))]


def separable(random: Random, shape: Shape) -> Chain | None:
    """1×1, depthwise and 1×1, as in MobileNets; or a strided stem and what follows it."""
    if len(shape) != 4 or 0 in shape:
        return None
    hidden, outs = random.choice([8, 16, 24]), random.choice([shape[1], 8, 16])
    wide, stem = (shape[0], hidden, *shape[2:]), random.random() < 0.3
    chain = [convolution(random, shape, hidden, 3 if stem else 1, 2 if stem else 1), *follows(random, hidden, 4),
             convolution(random, wide, hidden, random.choice([3, 3, 5]), random.choice([1, 1, 2]), hidden),
             *follows(random, hidden, 4)]
    if random.random() < 0.7:
        chain += [convolution(random, wide, outs, 1), *follows(random, outs, 4)]
    return [*chain, Made("Add", {}, ["#0"])] if random.random() < 0.4 else chain


def excited(random: Random, shape: Shape) -> Chain | None:
    """Squeeze and excitation."""
    if len(shape) != 4 or 0 in shape:
        return None
    point = (shape[0], shape[1], 1, 1)
    return [Made("GlobalAveragePool"), convolution(random, point, 4, 1), Made("Relu"),
            convolution(random, (shape[0], 4, 1, 1), shape[1], 1), Made(random.choice(["Sigmoid", "HardSigmoid"])),
            Made("Mul", {}, ["#0"])]


def branches(random: Random, shape: Shape) -> Chain | None:
    """Convolutions of the same input, side by side."""
    if len(shape) not in (3, 4) or 0 in shape:
        return None
    first, second = (convolution(random, shape, random.choice([3, 8]), random.choice([1, 3])) for _ in range(2))
    second.others, second.reads_source = ["#0", *second.others], False
    return [first, second, Made("Concat", {"axis": 1}, random.choice([["#1"], ["#0"], ["#1", "#0"]]))]


def padded(random: Random, shape: Shape) -> Chain | None:
    """A window over what a node of its own has padded."""
    if len(shape) not in (3, 4) or 0 in shape:
        return None
    mode = random.choice(["constant", "reflect", "edge"])
    pads = [0, 0, *(random.randint(0, 1) for _ in shape[2:])] * 2
    value = [floats(random.choice([0.0, 0.0, 1.0, -np.inf]))] if mode == "constant" else []
    window = {"kernel_shape": [min(2, size) for size in shape[2:]]}
    return [Made("Pad", {"mode": mode}, [np.array(pads), *value]),
            random.choice([convolution(random, shape, 6, 3), Made("MaxPool", window), Made("AveragePool", window)])]


def enlarged(random: Random, shape: Shape) -> Chain | None:
    """Twice as large, by pixels or by a transposed convolution."""
    if len(shape) != 4 or 0 in shape:
        return None
    if random.random() < 0.4:
        scales = floats([1, 1, 2, 2])
        mode = random.choice([{"mode": "nearest", "nearest_mode": "floor",
                               "coordinate_transformation_mode": "asymmetric"}, {"mode": "linear"}])
        return [Made("Resize", mode, ["", scales]), convolution(random, shape, 8, 3), *follows(random, 8, 4)]
    kernel, around = random.choice([(2, 0), (4, 1), (3, 1)])
    outs = random.choice([3, 8, 16])
    weight = pruned(random, shape[1], outs, kernel, kernel, axis=1)
    return [Made("ConvTranspose", {"strides": [2, 2], "pads": [around] * 4, "kernel_shape": [kernel] * 2},
                 [weight, *([array(random, outs)] if random.random() < 0.6 else [])]), *follows(random, outs, 4)]


def unpooled(random: Random, shape: Shape) -> Chain | None:
    if len(shape) != 4 or min(shape[2:], default=0) < 2:
        return None
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    return [Made("MaxPool", window, outputs=2), Made("MaxUnpool", window, ["#1:1"])]


def shuffled(random: Random, shape: Shape) -> Chain | None:
    if len(shape) != 4 or shape[1] % 2 or 0 in shape:
        return None
    return [Made("Reshape", {}, [np.array([shape[0], 2, shape[1] // 2, *shape[2:]])]),
            Made("Transpose", {"perm": [0, 2, 1, 3, 4]}), Made("Reshape", {}, [np.array(shape)])]


def dense(random: Random, width: int, outs: int, *, source: str | None = None) -> Chain:
    """A linear layer as MatMul and Add."""
    weight = pruned(random, outs, width).T.copy()
    bias = [Made("Add", {}, [array(random, outs)])] if random.random() < 0.7 else []
    if source:
        return [Made("MatMul", {}, [source, weight], reads_source=False), *bias]
    return [Made("MatMul", {}, [weight]), *bias]


def feed_forward(random: Random, shape: Shape) -> Chain | None:
    if len(shape) not in (2, 3) or 0 in shape:
        return None
    hidden = random.choice([4, 16, 33])
    return [*dense(random, shape[-1], hidden), *follows(random, hidden, 2), *dense(random, hidden, shape[-1]),
            Made("Add", {}, ["#0"])]


def attention(random: Random, shape: Shape) -> Chain | None:
    """Of [batch, tokens, channels], in heads or as one."""
    if len(shape) != 3 or 0 in shape:
        return None
    heads, width = random.choice([(1, 5), (2, 4), (3, 8)])
    chain: Chain = []
    places = []
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        chain += [*dense(random, shape[-1], heads * width, source="#0"),
                  Made("Reshape", {}, [np.array([*shape[:2], heads, width])]), Made("Transpose", {"perm": perm})]
        places.append(f"#{len(chain)}")
    queries, keys, values = places
    chain.append(Made("MatMul", {}, [queries, keys], reads_source=False))
    chain.append(random.choice([Made("Mul", {}, [floats(width**-0.5)]), Made("Div", {}, [floats(width**0.5)])]))
    if random.random() < 0.3:
        mask = np.where(array(random, shape[1], shape[1]) > 1, np.float32(-1e9), np.float32(0))
        chain.append(Made("Add", {}, [mask]))
    return [*chain, Made("Softmax", {"axis": random.choice([-1, 3])}), Made("MatMul", {}, [values]),
            Made("Transpose", {"perm": [0, 2, 1, 3]}),
            Made("Reshape", {}, [np.array([*shape[:2], heads * width])])]


def spelled_norm(random: Random, shape: Shape) -> Chain | None:
    """Layer normalisation in its parts."""
    if len(shape) < 2 or 0 in shape:
        return None
    by_input = random.random() < 0.5

    def mean() -> Made:
        return Made("ReduceMean", {}, [np.array([-1])]) if by_input else Made("ReduceMean", {"axes": [-1]})

    scale, shift = (array(random, shape[-1]) for _ in range(2))
    return [mean(), Made("Sub", {}, ["#0", "#1"], reads_source=False), Made("Pow", {}, [floats(2)]), mean(),
            Made("Add", {}, [floats(1e-3)]), Made("Sqrt"), Made("Div", {}, ["#2", "#6"], reads_source=False),
            Made("Mul", {}, [one_of(random, scale, floats(2))]), Made("Add", {}, [shift])]


MAKERS: list[Maker] = [
    *[layer] * 4, *[separable] * 4, excited, branches, padded, padded, enlarged, enlarged, unpooled, shuffled,
    feed_forward, feed_forward, attention, attention, spelled_norm,
]
