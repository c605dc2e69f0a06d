"""No engine: the core's own limit, a loop of fused multiply-adds on registers that takes its turn like the others."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.latency.engines import Runner

REQUIREMENTS: tuple[tuple[str, ...], ...] = ()
PACKAGE = "ziglang"
SETTINGS = ("12 independent accumulators of the widest vector the core has, compiled by `zig cc -O3 -march=native`: "
            "the peak that shares of the roofline refer to.")
MACS = 50_000_000
SOURCE = Path(__file__).with_suffix(".c")


def prepare(onnx: Path, folder: Path) -> Path:
    library = folder / "peak.so"
    subprocess.run([sys.executable, "-m", "ziglang", "cc", "-O3", "-march=native", "-ffp-contract=fast", "-shared",
                    "-fPIC", str(SOURCE), "-o", str(library)], check=True, capture_output=True)
    return library


def load(prepared: Path, image: np.ndarray) -> Runner:
    library = ctypes.CDLL(str(prepared))
    library.macs_per_step.restype = ctypes.c_long
    library.multiply_add.argtypes = [ctypes.c_void_p, ctypes.c_float, ctypes.c_float, ctypes.c_long]
    result, steps = np.zeros(16, np.float32), MACS // library.macs_per_step()

    def run() -> np.ndarray:
        library.multiply_add(result.ctypes.data, 0.5, 1.0, steps)
        return result

    return run
