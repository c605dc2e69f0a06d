"""Networks that find joints: a map of scores for each."""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.networks.published.parts import Outputs
from onexn_plugins.zoo import import_torchvision, load_model


class _SimpleBaseline(nn.Module):
    def __init__(self, width: int, joints: int) -> None:
        super().__init__()
        backbone = load_model("resnet18")
        self.features = nn.Sequential(*list(backbone.children())[:-2])
        channels, layers = 512, list[nn.Module]()
        for _ in range(3):
            layers += [nn.ConvTranspose2d(channels, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.up, self.head = nn.Sequential(*layers), nn.Conv2d(width, joints, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.features(x)))


def simple_baseline() -> nn.Module:
    """After Xiao et al. (2018): ResNet-18 and three transposed convolutions of 128 channels."""
    return _SimpleBaseline(128, 17)


class _Heatmaps(nn.Module):
    """The finest of several resolutions, as a map for each joint."""

    def __init__(self, backbone: nn.Module, channels: int, joints: int) -> None:
        super().__init__()
        self.backbone, self.head = Outputs(backbone), nn.Conv2d(channels, joints, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x)[0])


def hrnet() -> nn.Module:
    """timm's HRNet-W18-Small (Sun et al. 2019) with a map for each of 17 joints."""
    import_torchvision()  # which timm imports, whatever torch it was built for
    import timm

    backbone = timm.create_model("hrnet_w18_small", features_only=True, feature_location="", out_indices=(1,))
    return _Heatmaps(backbone, backbone.feature_info.channels()[-1], 17)
