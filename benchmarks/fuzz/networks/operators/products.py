"""Matrix products and recurrence."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from benchmarks.fuzz.networks.operators.made import OTHER, Made, Maker, Shape, array, number, one_of


def linear(random: Random, shape: Shape) -> Made | None:
    if not shape:
        return None
    if len(shape) == 2 and random.random() < 0.6:
        turned, turned_x, outs = random.randint(0, 1), int(random.random() < 0.2), random.randint(1, 20)
        rows, width = shape[::-1] if turned_x else shape
        weight = array(random, *((outs, width) if turned else (width, outs)))
        biases: list[list[np.ndarray]] = [[], [array(random, outs)], [array(random, 1, outs)],
                                          [array(random, rows, 1)], [number(random)], [array(random, rows, outs)]]
        return Made("Gemm", {"transA": turned_x, "transB": turned, "alpha": random.choice([1.0, 0.5]),
                             "beta": random.choice([1.0, 2.0])}, [weight, *random.choice(biases)])
    weight = array(random, shape[-1], random.randint(1, 20))
    if random.random() < 0.5:
        weight[:, random.randrange(weight.shape[1])::2] = 0
    return Made("MatMul", {}, [weight])


def product(random: Random, shape: Shape) -> Made | None:
    """Of two values, or with a constant of many axes."""
    if not shape:
        return None
    batch = [random.choice([1, size]) for size in shape[:-2]][random.randint(0, len(shape)):]
    return Made("MatMul", {}, [one_of(random, OTHER, array(random, *batch, shape[-1], random.randint(1, 5)),
                                       array(random, shape[-1]))])


def einsum(random: Random, shape: Shape) -> Made | None:
    letters = "abcdef"[:len(shape)]
    if not letters or 0 in shape:  # onnxruntime ends the process over nothing
        return None
    other = random.sample(letters, random.randint(1, len(letters)))
    output = random.sample(letters, random.randint(0, len(letters)))
    sizes = [shape[letters.index(letter)] for letter in other]
    return Made("Einsum", {"equation": f"{letters},{''.join(other)}->{''.join(output)}"}, [array(random, *sizes)])


def recurrent(random: Random, shape: Shape) -> Made | None:
    """RNN, GRU or LSTM over [steps, batch, features], with some of what is optional."""
    if len(shape) != 3 or 0 in shape:
        return None
    steps, batch, features = shape
    op, gates, states = random.choice([("RNN", 1, 1), ("GRU", 3, 1), ("LSTM", 4, 2)])
    hidden, ways = random.randint(1, 6), random.choice([1, 1, 2])
    attributes: dict[str, Any] = {"hidden_size": hidden}
    if ways == 2:
        attributes["direction"] = "bidirectional"
    elif random.random() < 0.4:
        attributes["direction"] = "reverse"
    if op == "GRU":
        attributes["linear_before_reset"] = random.randint(0, 1)
    if random.random() < 0.2:
        attributes["clip"] = 0.5
    if op == "RNN" and random.random() < 0.4:
        attributes["activations"] = [random.choice(["Relu", "Tanh", "Sigmoid"]) for _ in range(ways)]
    others: list[np.ndarray | str] = [array(random, ways, gates * hidden, features),
                                      array(random, ways, gates * hidden, hidden)]
    optional: list[np.ndarray] = [array(random, ways, 2 * gates * hidden),
                                  np.array([random.randint(1, steps) for _ in range(batch)], np.int32),
                                  *(array(random, ways, batch, hidden) for _ in range(states))]
    others += [item if random.random() < 0.4 else "" for item in optional]
    if op == "LSTM" and random.random() < 0.3:
        others.append(array(random, ways, 3 * hidden))
    while others[-1] is not None and isinstance(others[-1], str):
        others.pop()
    asked = [random.random() < 0.6 for _ in range(states + 1)]
    return Made(op, attributes, others, asked if any(asked) else [True])


MAKERS: list[Maker] = [linear, linear, product, einsum, recurrent, recurrent]
