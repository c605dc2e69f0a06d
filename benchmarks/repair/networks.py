"""The networks that are repaired, with their weights and their photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from benchmarks.accuracy.networks import mobilenet_v2_small
from benchmarks.demo.steps import load
from benchmarks.repair.photos import Photos
from onexn_plugins.zoo import load_weights


def small() -> nn.Module:
    """The network that benchmarks.accuracy prunes, trained."""
    model = mobilenet_v2_small().eval()
    load_weights(model, Path(__file__).parents[1] / "accuracy/results/mobilenet_v2_small-start-e5-s0.safetensors")
    return model


# name -> (photos from --data, the trained network, its name in tables)
NETWORKS: dict[str, tuple[Callable[[Path], Photos], Callable[[], nn.Module], str]] = {
    "efficientnet_lite0": (Photos.read, load, "EfficientNet-Lite0"),
    "mobilenet_v2_small": (Photos.thumbnails, small, "MobileNetV2 of 145 thousand parameters on CIFAR-10 (JPEG)")}
