"""A network small enough to compile in a second: convolution, ReLU, mean over pixels."""

from __future__ import annotations

import numpy as np

INPUT_SHAPE = (1, 3, 8, 8)
OUTPUT_SHAPE = (1, 4)
METADATA = {
    "inputs": [{"name": "x", "shape": list(INPUT_SHAPE), "dtype": "float32"}],
    "outputs": [{"name": "y", "shape": list(OUTPUT_SHAPE), "dtype": "float32"}],
    "layers": [],
}


def weights() -> tuple[np.ndarray, np.ndarray]:
    """Its weight [4, 3, 3, 3] and bias [4]."""
    random = np.random.default_rng(0)
    return random.standard_normal((4, 3, 3, 3), np.float32), random.standard_normal(4, np.float32)


def expected(x: np.ndarray) -> np.ndarray:
    """What it computes, in NumPy."""
    weight, bias = weights()
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    y = np.einsum("bihwkl,oikl->bohw", windows, weight) + bias[None, :, None, None]
    return np.maximum(y, 0).mean((2, 3))


def compiled(target):
    """The network compiled for a `Target`."""
    from tvm import relax

    from onexn_plugins.tvm_backend.output.tvm_library import compile_library

    weight, bias = weights()
    x = relax.Var("x", relax.TensorType(INPUT_SHAPE, "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.conv2d(x, relax.const(weight)))
            y = builder.emit(relax.op.add(y, relax.const(bias.reshape(1, 4, 1, 1))))
            y = builder.emit(relax.op.nn.relu(y))
            output = builder.emit_output(relax.op.mean(y, axis=[2, 3]))
        builder.emit_func_output(output)
    return compile_library(builder.finalize(), target)
