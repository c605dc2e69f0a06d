"""Networks that train in minutes on one core, out of torchvision's own blocks."""

from __future__ import annotations

from torch import nn

from onexn_plugins.zoo import import_torchvision

CLASSES = 10
# Out channels, repeats and first stride of each stage; the stem halves the image, as on ImageNet.
STAGES = ((24, 2, 1), (32, 3, 2), (64, 3, 2))
STEM, EXPANSION, HEAD = 24, 4, 256


def mobilenet_v2_small() -> nn.Module:
    """MobileNetV2 for 32×32 images: 145 thousand parameters, strided stem, expansion 4."""
    torchvision = import_torchvision()
    from torchvision.models.mobilenetv2 import InvertedResidual

    assert torchvision is not None
    conv = torchvision.ops.Conv2dNormActivation
    layers, channels = [conv(3, STEM, stride=2, activation_layer=nn.ReLU6)], STEM
    for out_channels, repeats, stride in STAGES:
        for index in range(repeats):
            layers.append(InvertedResidual(channels, out_channels, stride if index == 0 else 1, EXPANSION))
            channels = out_channels
    layers.append(conv(channels, HEAD, kernel_size=1, activation_layer=nn.ReLU6))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(HEAD, CLASSES))


NETWORKS = {"mobilenet_v2_small": mobilenet_v2_small}
