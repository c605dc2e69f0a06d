"""One run: prepare, train, measure, compile, and one JSON that says it all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.accuracy.latency import latency
from benchmarks.accuracy.methods import METHODS, plain
from benchmarks.accuracy.networks import NETWORKS
from benchmarks.accuracy.rows import Row, start_of
from benchmarks.common.record import record
from onexn_plugins import export_onnx, measure
from onexn_plugins.cli.common import save_weights
from onexn_plugins.errors import OneXNError
from onexn_plugins.files import written_aside
from onexn_plugins.layers import prunable_layers
from onexn_plugins.training import train
from onexn_plugins.training.data.images import ImageData, Request
from onexn_plugins.zoo import load_weights

PACKAGES = ("torch", "torchvision", "torch-pruning", "nni", "lightning-fabric", "apache-tvm", "onnx", "onnxruntime",
            "numpy")
COMMAND = "python -m benchmarks.accuracy run --data cifar10-jpeg.zip"


def run(row: Row, data: ImageData, data_name: str, results: Path, work: Path,
        progress: Callable[[str], None]) -> dict[str, Any]:
    """Train one row, or go on with it, and write its JSON; a start also leaves its weights beside it.

    Args:
        row: what.
        data: trained on and judged by.
        data_name: said beside the numbers.
        results: folder of the JSONs; a row's start must be there.
        work: folder of states, logs and ONNX files.
        progress: for notes.
    """
    torch.manual_seed(0)
    model = NETWORKS[row.network]().eval()
    if row.method != "start":
        load_weights(model, start_weights(results, row))
    example = data.held_out[Request(0, [0])].images
    dense = {"parameters": _parameters(model), "macs": measure(model, row.block_size, example).dense_macs}
    started, cpu = time.time(), time.process_time()
    trained = train(model, data, row.recipe, work / row.name, method=METHODS[row.method](row, data.training),
                    tensorboard=False, progress=progress)
    seconds, cpu_seconds = time.time() - started, time.process_time() - cpu
    progress("measuring")
    model = plain(trained.model)
    values = {
        "row": row.to_dict(), "data": data_name, "recipe": vars(row.recipe).copy(),
        "curve": trained.history, "top1": trained.accuracy.top1, "top5": trained.accuracy.top5,
        "held_out_images": trained.accuracy.images, "dense": dense, **_size(model, row, example),
        "seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1), "threads": torch.get_num_threads(),
        "latency": _latency(model, row, results, work, example), "record": record(COMMAND, PACKAGES)}
    if row.method == "start":
        save_weights(model, start_weights(results, row))
    with written_aside(results / f"{row.name}.json") as aside:
        aside.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return values


def start_weights(results: Path, row: Row) -> Path:
    """Where the weights lie that the row starts from."""
    return results / f"{start_of(row).name}.safetensors"


def _size(model: nn.Module, row: Row, example: Tensor) -> dict[str, Any]:
    """What is left: of all parameters, of the prunable layers' weights, of the multiply-accumulates."""
    report = measure(model, row.block_size, example)
    weights = [layer.weight for layer in prunable_layers(model).values()]
    return {"parameters": _parameters(model), "macs": report.macs,
            "nonzero_weights": int(sum(int((weight != 0).sum()) for weight in weights)),
            "weights": int(sum(weight.numel() for weight in weights)), "sparsity_blocks": report.sparsity.blocks}


def _parameters(model: nn.Module) -> int:
    """Those that are not zero."""
    return int(sum(int((parameter != 0).sum()) for parameter in model.parameters()))


def _latency(model: nn.Module, row: Row, results: Path, work: Path, example: Tensor) -> dict[str, Any]:
    """Measured beside the dense start, which is compiled anew so that both are of one compiler."""
    try:
        path = export_onnx(model, example, work / row.name / "model.onnx", block_size=row.block_size)
        if row.method == "start":
            return latency(path, path)
        torch.manual_seed(0)
        dense = NETWORKS[row.network]().eval()
        load_weights(dense, start_weights(results, row))
        return latency(path, export_onnx(dense, example, work / row.name / "dense.onnx", block_size=row.block_size))
    except OneXNError as error:
        return {"error": str(error)}
