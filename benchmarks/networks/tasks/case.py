"""python -m benchmarks.networks.tasks.case NETWORK RATIO ROUNDS: one network; prints one line of JSON.

A process of its own for each, so that whatever goes wrong in one is seen and harms no other.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import onexn_plugins.nni
from benchmarks.networks.tasks.zoo import TASKS
from onexn_plugins import export_onnx, fold, measure
from onexn_plugins.cli.run import onnxruntime_session
from onexn_plugins.errors import OneXNError
from onexn_plugins.timing import CALLS_PER_TURN, interleave_turns
from onexn_plugins.torch_pruning import OneXNPruner
from onexn_plugins.tvm_backend import Compiled, compile_model
from onexn_plugins.zoo import load_model

BLOCK_SIZE = 4
_WORTH_SAYING = 0.03  # of the time
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def run(name: str, ratio: float, rounds: int) -> dict[str, Any]:
    """Prune by each adapter, channels moved first; export, compile, compare, time in turns.

    Returns:
        "difference_exact", "difference_onnxruntime": largest over all outputs, each over its own largest value, from
            torch in float64 and from onnxruntime on the pruned file;
        "adapters": whether NNI's adapter gives the same weights for the layers that torch-pruning's chose;
        "sparsity": share of the prunable blocks that are zero; "macs": left, over all;
        "onnxruntime_dense", "onnxruntime_pruned", "ours": milliseconds of the processor;
        "faster", "faster_pruned": than onnxruntime on the dense file, and on the pruned one;
        "without": layers that no kernel of ours computes; "without_share": of the time that TVM's own code takes;
        "compile_seconds" by the clock, and "compile_processor_seconds", which others on the machine do not lengthen.
    """
    torch.set_num_threads(1)
    task = TASKS[name]
    example = torch.randn(task.shape, generator=torch.Generator().manual_seed(0))
    dense = _settled(load_model(task.model), task.shape)
    pruned = deepcopy(dense)
    OneXNPruner(pruned, example, block_size=BLOCK_SIZE, pruning_ratio=ratio, rearrange=True, full=task.full).step()
    fold(pruned)
    report = measure(pruned, BLOCK_SIZE, example)
    with torch.no_grad():
        exact = _tensors(deepcopy(pruned).double()(example.double()))
    with tempfile.TemporaryDirectory(prefix="onexn-tasks-") as folder:
        files = {"dense": Path(folder) / "dense.onnx", "pruned": Path(folder) / "pruned.onnx"}
        for kind, model in (("dense", dense), ("pruned", pruned)):
            export_onnx(model, example, files[kind], block_size=BLOCK_SIZE)
        os.environ["XDG_CACHE_HOME"] = folder  # so that every operator is compared, as on a new machine
        started, spent = time.monotonic(), _processor_seconds()
        compiled = compile_model(files["pruned"])
        seconds, spent = time.monotonic() - started, _processor_seconds() - spent
        peers = {kind: onnxruntime_session(str(path)) for kind, path in files.items()}
    x = example.numpy()
    runs: dict[str, Callable[[], Any]] = {
        f"onnxruntime_{kind}": partial(session.run, None, {session.get_inputs()[0].name: x})
        for kind, session in peers.items()}
    runs["ours"] = partial(compiled.run, x)
    outputs = _listed(compiled.run(x))
    timings = interleave_turns({kind: partial(_turn, call) for kind, call in runs.items()}, rounds=rounds)
    layers = [layer for layer in report.layers if layer.dense_macs]
    return {
        "difference_exact": _difference(outputs, exact),
        "difference_onnxruntime": _difference(outputs, runs["onnxruntime_pruned"]()),
        "adapters": _same_by_nni(dense, pruned, example, ratio),
        "sparsity": round(report.sparsity.blocks, 4),
        "macs": round(sum(layer.macs or 0 for layer in layers) / sum(layer.dense_macs or 0 for layer in layers), 3),
        **{kind: asdict(timings.milliseconds(kind)) for kind in runs},
        "faster": asdict(timings.speedup("ours", "onnxruntime_dense")),
        "faster_pruned": asdict(timings.speedup("ours", "onnxruntime_pruned")),
        "compile_seconds": round(seconds, 1), "compile_processor_seconds": round(spent, 1), **_without(compiled),
    }


def _processor_seconds() -> float:
    """What this process and those that it waited for have used of the processors."""
    return sum(os.times()[:4])


def _turn(call: Callable[[], object]) -> np.ndarray:
    """Milliseconds of the processor for each of a turn's calls: all engines run on the calling thread, and what other
    programs take of a busy machine does not count.
    """
    marks = []
    for _ in range(CALLS_PER_TURN):
        marks.append(time.thread_time_ns())
        call()
    return np.diff([*marks, time.thread_time_ns()]) / 1e6


def _settled(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Batch norm statistics of this network's own activations: fresh ones let them shrink or grow layer by layer."""
    for norm in (module for module in model.modules() if isinstance(module, _NORMS)):
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model(torch.randn(4, *shape[1:], generator=torch.Generator().manual_seed(1)))
    return model.eval()


def _same_by_nni(dense: nn.Module, pruned: nn.Module, example: Tensor, ratio: float) -> str:
    """"same" where NNI's adapter, told to prune the same layers, gives the same weights; else what is different."""
    names = [layer.name for layer in measure(pruned, BLOCK_SIZE).layers if layer.kept < layer.blocks]
    model = deepcopy(dense)
    try:
        pruner = onexn_plugins.nni.OneXNPruner(
            model, [{"op_names": names, "sparse_ratio": ratio}], block_size=BLOCK_SIZE, rearrange=True,
            example_inputs=example)
        pruner.compress()
        pruner.unwrap_model()
        fold(model)
    except OneXNError as error:
        return f"refused: {error}"
    ours = dict(model.named_parameters())
    differing = [name for name, value in pruned.named_parameters() if not torch.equal(value, ours[name])]
    return f"{len(differing)} of {len(ours)} weights differ" if differing else "same"


def _tensors(outputs: Any) -> list[np.ndarray]:
    return [output.numpy() for output in (outputs if isinstance(outputs, (tuple, list)) else (outputs,))]


def _listed(outputs: Any) -> list[np.ndarray]:
    return [outputs] if isinstance(outputs, np.ndarray) else list(outputs)


def _difference(outputs: list[np.ndarray], expected: list[np.ndarray]) -> float:
    return max(float(np.abs(output - other).max() / np.abs(other).max())
               for output, other in zip(outputs, expected, strict=True))


def _without(compiled: Compiled) -> dict[str, Any]:
    kernels = compiled.profile().kernels
    names = [layer.name for layer in compiled.layers if layer.family is None]
    others = sorted((kernel for kernel in kernels if kernel.kernel == "tvm"), key=lambda kernel: -kernel.share)
    return {"without": names, "without_share": round(sum(kernel.share for kernel in others), 3),
            "slowest_without": [f"{kernel.name} {kernel.share:.0%}" for kernel in others
                                if kernel.share > _WORTH_SAYING]}


if __name__ == "__main__":
    network, share, turns = sys.argv[1:]
    print(json.dumps(run(network, float(share), int(turns))))
