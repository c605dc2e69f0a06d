"""Networks that give an image."""

from __future__ import annotations

from torch import Tensor, nn

_SCALE = 0.1


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
                                   nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs(x) * _SCALE


class _Edsr(nn.Module):
    def __init__(self, channels: int, blocks: int, times: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(_Residual(channels) for _ in range(blocks)),
                                    nn.Conv2d(channels, channels, 3, padding=1))
        self.leave = nn.Sequential(nn.Conv2d(channels, channels * times**2, 3, padding=1), nn.PixelShuffle(times),
                                   nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.leave(x + self.blocks(x)).clamp(0, 255)


def edsr() -> nn.Module:
    """After EDSR's baseline (Lim et al. 2017), eight blocks of 64 channels, twice as large, bounded as images are."""
    return _Edsr(64, 8, 2)


def _normed(channels: int, out_channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.ReflectionPad2d(kernel // 2), nn.Conv2d(channels, out_channels, kernel, stride),
            nn.InstanceNorm2d(out_channels, affine=True)]


class _StyleBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(*_normed(channels, channels, 3), nn.ReLU(), *_normed(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs(x)


def style_transfer() -> nn.Module:
    """After Johnson et al. (2016), with instance norms and enlarged by repetition, half of its channels."""
    up = nn.Upsample(scale_factor=2, mode="nearest")
    return nn.Sequential(
        *_normed(3, 16, 9), nn.ReLU(), *_normed(16, 32, 3, 2), nn.ReLU(), *_normed(32, 64, 3, 2), nn.ReLU(),
        *(_StyleBlock(64) for _ in range(5)), up, *_normed(64, 32, 3), nn.ReLU(), up, *_normed(32, 16, 3), nn.ReLU(),
        nn.ReflectionPad2d(4), nn.Conv2d(16, 3, 9))
