"""python -m benchmarks.networks.case NETWORK PIXELS RATIO [OPSET TOOL]: one network; prints one line of JSON.

A process of its own for each, so that whatever goes wrong in one is seen and harms no other.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.networks.files import NoFile, in_opset
from onexn_plugins import export_onnx, fold
from onexn_plugins.cli.run import onnxruntime_session
from onexn_plugins.torch_pruning import OneXNPruner
from onexn_plugins.tvm_backend import Compiled, compile_model
from onexn_plugins.zoo import load_model

BLOCK_SIZE = 4


def measure(network: str, pixels: int, ratio: float, opset: int | None = None, tool: str = "") -> dict[str, Any]:
    """Prune, export, compile and compare; without an opset in the file that export_onnx writes.

    Raises:
        NoFile: the tool cannot write this opset.

    Returns:
        "difference_exact", "difference_torch" and "difference_onnxruntime": largest absolute difference over the
        output's largest value, from torch in float64, torch in float32 and onnxruntime;
        "sparse", "dense", "ordinary": how many layers our kernels skip blocks in, compute whole, or leave to TVM;
        "why": how many layers gave each reason; "layers": all of them; "compile_seconds".
    """
    torch.set_num_threads(1)
    model = load_model(network)
    image = torch.randn(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    _settle(model, pixels)
    if ratio:
        # ConvNeXt is made of linear layers, which are left dense unless asked for.
        OneXNPruner(model, image, block_size=BLOCK_SIZE, pruning_ratio=ratio, full="convnext" in network).step()
        fold(model)
    with torch.no_grad():
        expected, exact = model(image).numpy(), deepcopy(model).double()(image.double()).numpy()
    with tempfile.TemporaryDirectory(prefix="onexn-networks-") as folder:
        path = Path(folder) / "network.onnx"
        if opset is None:
            export_onnx(model, image, path, block_size=BLOCK_SIZE)
        else:
            path.write_bytes(in_opset(model, image, opset, tool))
        session = onnxruntime_session(str(path))
        (peer,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        started = time.monotonic()
        compiled = compile_model(path)
        seconds = time.monotonic() - started
    output = compiled.run(image.numpy())
    assert isinstance(output, np.ndarray), "these networks have one output"
    return {"difference_exact": _difference(output, exact), "difference_torch": _difference(output, expected),
            "difference_onnxruntime": _difference(output, peer),
            "compile_seconds": round(seconds, 1), **_layers(compiled)}


def _settle(model: nn.Module, pixels: int) -> None:
    """Batch norm statistics of this network's own activations: fresh ones let them shrink or grow layer by layer."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model(torch.randn(4, 3, pixels, pixels, generator=torch.Generator().manual_seed(1)))
    model.eval()


def _difference(output: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(output - expected).max() / np.abs(expected).max())


def _layers(compiled: Compiled) -> dict[str, Any]:
    layers = [layer.to_dict() for layer in compiled.layers]
    sparse, ordinary = [layer for layer in layers if layer["sparse"]], [
        layer for layer in layers if layer["reason"].startswith("no kernel")]
    reasons = Counter("1×4 blocks skipped" if layer["sparse"] else layer["reason"] for layer in layers)
    return {"sparse": len(sparse), "ordinary": len(ordinary), "dense": len(layers) - len(sparse) - len(ordinary),
            "why": dict(reasons.most_common()),
            "layers": [[layer["name"], layer["operator"], layer["kept"], layer["reason"]] for layer in layers]}


if __name__ == "__main__":
    name, size, share, *wanted = sys.argv[1:]
    try:
        found = measure(name, int(size), float(share), *((int(wanted[0]), wanted[1]) if wanted else ()))
    except NoFile as refusal:
        found = {"no_file": str(refusal)}
    print(json.dumps(found))
