"""This package: compiled for the processor at hand, saved, and loaded again."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.latency.engines import Runner

REQUIREMENTS: tuple[tuple[str, ...], ...] = ()
PACKAGE = "onexn-plugins"
SETTINGS = "`compile_model(path, threads=1)`; every call checks the image and reads it where it lies."


def prepare(onnx: Path, folder: Path) -> Path:
    """Compile; `compiling.json` beside the artefact says how long that took and what became of the layers."""
    from onexn_plugins.tvm_backend import compile_model

    started = time.perf_counter()
    compiled = compile_model(onnx, threads=1)
    seconds = time.perf_counter() - started
    sparse = sum(layer.sparse for layer in compiled.layers)
    (folder / "compiling.json").write_text(json.dumps(
        {"seconds": round(seconds, 2), "layers": len(compiled.layers), "sparse_layers": sparse}), encoding="utf-8")
    return Path(compiled.save(folder / "network.onexn"))


def load(prepared: Path, image: np.ndarray) -> Runner:
    from onexn_plugins.tvm_backend import load as load_compiled

    compiled = load_compiled(prepared)
    return cast(Runner, lambda: compiled.run(image))  # one output, an array
