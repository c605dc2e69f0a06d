"""ImageNet networks at a block size and ratio, as ONNX files. Weights are random: they serve for speed alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.latency.parts import PIXELS, Variant
from onexn_plugins import export_onnx, fold, measure
from onexn_plugins.torch_pruning import OneXNPruner
from onexn_plugins.zoo import load_model

NETWORKS = {"mobilenet_v1": "mobilenet_v1", "mobilenet_v2": "mobilenet_v2", "mobilenet_v3_large": "mobilenet_v3_large",
            "mobilenet_v3_small": "mobilenet_v3_small", "resnet50": "resnet50",
            "efficientnet_lite0": "timm/efficientnet_lite0"}


@dataclass(frozen=True)
class Exported:
    """A folder with one network.

    Attributes:
        onnx, image, reference: the file, an input, and what torch makes of it.
        macs: multiply-accumulates that are left.
        content: hash of what the file computes, whichever commit wrote it.
    """

    folder: Path

    @property
    def onnx(self) -> Path:
        return self.folder / "network.onnx"

    @property
    def image(self) -> Path:
        return self.folder / "image.npy"

    @property
    def reference(self) -> Path:
        return self.folder / "reference.npy"

    @property
    def macs(self) -> int:
        return int(self._facts()["macs"])

    @property
    def content(self) -> str:
        return str(self._facts()["content"])

    def _facts(self) -> dict[str, Any]:
        return json.loads((self.folder / "facts.json").read_text(encoding="utf-8"))


def export(variant: Variant, folder: Path, pixels: int = PIXELS) -> Exported:
    """Prune by L1 norm, fold, export; everything seeded. `folder` exists and gets the files."""
    model, exported = load_model(NETWORKS[variant.network]), Exported(folder)
    _settle(model)
    image = torch.randn(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    if variant.ratio:
        OneXNPruner(model, image, block_size=variant.block_size, pruning_ratio=variant.ratio).step()
        fold(model)
    export_onnx(model, image, exported.onnx, block_size=variant.block_size)
    np.save(exported.image, image.numpy())
    with torch.no_grad():
        np.save(exported.reference, model(image).numpy())
    macs = measure(model, variant.block_size, image).macs
    (folder / "facts.json").write_text(json.dumps({"macs": macs, "content": _content(exported.onnx)}), encoding="utf-8")
    return exported


def _content(path: Path) -> str:
    """Of the graph and its weights, without the notes that exporters leave in the file."""
    import onnx

    model = onnx.load(str(path))
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    model.doc_string = model.graph.doc_string = ""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _settle(model: nn.Module) -> None:
    """Batch norm statistics as trained networks have them: fresh ones let activations shrink to denormal numbers,
    whose arithmetic is slow on some processors."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                channels = module.num_features
                assert module.running_var is not None
                assert module.running_mean is not None
                module.running_var.copy_(torch.rand(channels, generator=generator) * 0.4 + 0.8)
                module.running_mean.copy_(torch.randn(channels, generator=generator) * 0.05)
                module.weight.copy_(torch.rand(channels, generator=generator) * 0.2 + 0.9)
                module.bias.copy_(torch.randn(channels, generator=generator) * 0.05)
