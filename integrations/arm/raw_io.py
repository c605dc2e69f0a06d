"""Raw inputs for a network's program on a 32-bit board, and a check of what it computed.

    python raw_io.py make pruned.onnx input.bin
    python raw_io.py check pruned.onnx input.bin output.bin
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime

TOLERANCE = 1e-4  # of the output's largest value
DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}


def main(action: str, model: str, *files: str) -> int:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if action == "make":
        random = np.random.default_rng(0)
        for tensor, file in zip(inputs, files, strict=True):
            random.standard_normal(tensor.shape).astype(DTYPES[tensor.type]).tofile(file)
        return 0
    arrays = {tensor.name: np.fromfile(file, DTYPES[tensor.type]).reshape(tensor.shape)
              for tensor, file in zip(inputs, files, strict=False)}
    expected = session.run(None, arrays)
    worst = 0.0
    for reference, file in zip(expected, files[len(inputs):], strict=True):
        output = np.fromfile(file, reference.dtype).reshape(reference.shape)
        worst = max(worst, float(np.abs(output - reference).max() / (np.abs(reference).max() or 1.0)))
    print(f"largest difference from onnxruntime: {worst:.1e} of the output's scale")
    return int(not worst <= TOLERANCE)


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[1] not in ("make", "check") or not Path(sys.argv[2]).is_file():
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
