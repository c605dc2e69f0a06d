"""The networks, by the names that onexn_plugins.zoo.load_model takes."""

from __future__ import annotations

TORCHVISION = (
    "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "resnet18", "resnet50",
    "resnext50_32x4d", "densenet121", "shufflenet_v2_x1_0", "squeezenet1_1", "vgg11_bn", "vgg16", "googlenet",
    "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny", "inception_v3", "mnasnet1_0",
)
TIMM = tuple(f"timm/{name}" for name in (
    "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_lite0", "efficientnet_b0", "resnet18",
    "resnet50", "resnext50_32x4d", "densenet121", "vgg11", "inception_v3", "regnetx_004", "regnety_004",
    "convnext_atto", "mnasnet_100",
))
NETWORKS = TORCHVISION + TIMM
# The smallest image a network takes, where that is more than the smallest one measured.
SMALLEST = {"inception_v3": 75, "timm/inception_v3": 75}
# Those whose operators changed most between opsets: hard-swish, SiLU, squeeze-excite, layer norm, channel shuffles.
OF_MANY_OPSETS = (
    "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "resnet18", "shufflenet_v2_x1_0", "googlenet",
    "convnext_tiny",
)
