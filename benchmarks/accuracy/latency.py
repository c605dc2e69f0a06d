"""Milliseconds per image of one network and of the dense one, each compiled by our backend and run by onnxruntime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from onexn_plugins.timing import interleave
from onexn_plugins.tvm_backend import compile_model

ROUNDS = 40


def latency(path: str | Path, dense_path: str | Path, rounds: int = ROUNDS) -> dict[str, Any]:
    """One thread, one image, A B C D A B C D in one process; ratios to dense onnxruntime are the ones to read.

    Returns:
        {engine: {"ms", "dense_ms", "speedup"}}, the speed-up over dense onnxruntime with its 10th and 90th percentile.
    """
    contenders = {}
    for which, file in (("pruned", path), ("dense", dense_path)):
        session = _session(file)
        name, shape = session.get_inputs()[0].name, session.get_inputs()[0].shape
        image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        contenders[f"onnxruntime {which}"] = lambda session=session, feed={name: image}: session.run(None, feed)
        compiled = compile_model(str(file), threads=1)
        contenders[f"onexn {which}"] = lambda compiled=compiled, image=image: compiled.run(image)
    timings = interleave(contenders, rounds=rounds)
    values: dict[str, Any] = {"load_average": round(os.getloadavg()[0], 2)}
    for engine in ("onexn", "onnxruntime"):
        speedup = timings.speedup(f"{engine} pruned", "onnxruntime dense")
        values[engine] = {"ms": timings.milliseconds(f"{engine} pruned").value,
                          "dense_ms": timings.milliseconds(f"{engine} dense").value,
                          "speedup": speedup.value, "low": speedup.low, "high": speedup.high}
    return values


def _session(path: str | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
