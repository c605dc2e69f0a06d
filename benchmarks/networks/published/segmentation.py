"""Networks that give every pixel a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.networks.published.parts import Outputs, conv_norm
from onexn_plugins.zoo import import_torchvision


class _UNet(nn.Module):
    def __init__(self, widths: tuple[int, ...], classes: int, *, bilinear: bool) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Sequential(conv_norm(before, width), conv_norm(width, width))
                                  for before, width in zip((3, *widths), widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        self.up, self.join = nn.ModuleList(), nn.ModuleList()
        for width, above in zip(widths[::-1], widths[-2::-1], strict=False):
            self.up.append(nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(width, above, 1))
                           if bilinear else nn.ConvTranspose2d(width, above, 2, 2))
            self.join.append(nn.Sequential(conv_norm(2 * above, above), conv_norm(above, above)))
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.down[0](x)]
        for stage in self.down[1:]:
            levels.append(stage(self.pool(levels[-1])))
        x = levels.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat((levels.pop(), up(x)), 1))
        return self.head(x)


def unet() -> nn.Module:
    """After U-Net (Ronneberger et al. 2015), padded: enlarged by transposed convolutions."""
    return _UNet((16, 32, 64, 128, 256), 2, bilinear=False)


def unet_bilinear() -> nn.Module:
    """The same, enlarged between pixels."""
    return _UNet((16, 32, 64, 128, 256), 2, bilinear=True)


def deeplabv3() -> nn.Module:
    """torchvision's DeepLabV3 on MobileNetV3-Large (Chen et al. 2017)."""
    models = import_torchvision().models
    return Outputs(models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None))


def lraspp() -> nn.Module:
    """torchvision's LR-ASPP on MobileNetV3-Large (Howard et al. 2019)."""
    models = import_torchvision().models
    return Outputs(models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None))
