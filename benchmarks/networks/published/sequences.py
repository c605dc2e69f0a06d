"""Networks that read text lines and sound: recurrent, convolutional over time, and with attention."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.networks.published.parts import conv_norm


class _Crnn(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_norm(1, 32), nn.MaxPool2d(2), conv_norm(32, 64), nn.MaxPool2d(2), conv_norm(64, 128),
            conv_norm(128, 128), nn.MaxPool2d((2, 1)), conv_norm(128, 256), nn.MaxPool2d((2, 1)),
            conv_norm(256, 256, 2, padding=0))
        self.recurrent = nn.LSTM(256, 64, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.features(x).mean(2).transpose(1, 2)
        return self.head(self.recurrent(columns)[0]).log_softmax(-1)


def crnn() -> nn.Module:
    """After CRNN (Shi et al. 2015): convolutions down to one row, two LSTMs in both directions."""
    return _Crnn(37)


class _Attention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.enter, self.leave = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, channels = x.shape
        parts = self.enter(x).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.leave(F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(batch, count, channels))


class _Mixer(nn.Module):
    """Attention, then two linear layers, each normed before and added."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.mix = _Attention(channels, heads)
        self.feed = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.first(x))
        return x + self.feed(self.second(x))


class _Svtr(nn.Module):
    def __init__(self, channels: tuple[int, ...], heads: tuple[int, ...], depths: tuple[int, ...],
                 classes: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(conv_norm(3, channels[0] // 2, stride=2, activation=nn.GELU),
                                   conv_norm(channels[0] // 2, channels[0], stride=2, activation=nn.GELU))
        self.stages = nn.ModuleList(nn.Sequential(*(_Mixer(width, count) for _ in range(depth)))
                                    for width, count, depth in zip(channels, heads, depths, strict=True))
        self.merge = nn.ModuleList(nn.Conv2d(width, wider, 3, (2, 1), 1)
                                   for width, wider in pairwise(channels))
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for number, stage in enumerate(self.stages):
            if number:
                x = self.merge[number - 1](x)
            height, width = x.shape[2:]
            rows = stage(x.flatten(2).transpose(1, 2))
            x = rows.transpose(1, 2).reshape(len(x), -1, height, width)
        return self.head(x.mean(2).transpose(1, 2))


def svtr() -> nn.Module:
    """After SVTR-Tiny (Du et al. 2022), half of its blocks, global mixing alone: attention over a text line's cells."""
    return _Svtr((64, 128, 256), (2, 4, 8), (2, 3, 1), 37)


class _TemporalBlock(nn.Module):
    """Two convolutions that reach back in time, dilated."""

    def __init__(self, channels: int, out_channels: int, dilation: int) -> None:
        super().__init__()
        self.reach = 2 * dilation
        self.first = nn.Conv1d(channels, out_channels, 3, dilation=dilation)
        self.second = nn.Conv1d(out_channels, out_channels, 3, dilation=dilation)
        self.beside = nn.Conv1d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(F.pad(x, (self.reach, 0))).relu()
        y = self.second(F.pad(y, (self.reach, 0))).relu()
        return (y + self.beside(x)).relu()


class _Tcn(nn.Module):
    def __init__(self, channels: int, width: int, blocks: int, classes: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_TemporalBlock(channels if place == 0 else width, width, 2**place)
                                      for place in range(blocks)))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x)[:, :, -1])


def tcn() -> nn.Module:
    """After Bai et al. (2018): dilated convolutions over time, 64 channels, six blocks."""
    return _Tcn(16, 64, 6, 10)


class _M5(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()

        def stage(channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(nn.Conv1d(channels, out_channels, kernel, stride), nn.BatchNorm1d(out_channels),
                                 nn.ReLU(), nn.MaxPool1d(4))

        self.stages = nn.Sequential(stage(1, width, 80, 16), stage(width, width, 3), stage(width, 2 * width, 3),
                                    stage(2 * width, 2 * width, 3))
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(x).mean(-1))


def m5() -> nn.Module:
    """After M5 (Dai et al. 2016): one second of sound, sample by sample, twice as wide as it is often taken."""
    return _M5(64, 35)


class _ConformerBlock(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.before, self.after = (nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, channels))
            for _ in range(2))
        self.norm, self.mix = nn.LayerNorm(channels), _Attention(channels, heads)
        self.conv_norm = nn.LayerNorm(channels)
        self.enter = nn.Conv1d(channels, 2 * channels, 1)
        self.depthwise = nn.Sequential(nn.Conv1d(channels, channels, 15, padding=7, groups=channels),
                                       nn.BatchNorm1d(channels), nn.SiLU())
        self.leave, self.last = nn.Conv1d(channels, channels, 1), nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.before(x)
        x = x + self.mix(self.norm(x))
        columns = F.glu(self.enter(self.conv_norm(x).transpose(1, 2)), 1)
        x = x + self.leave(self.depthwise(columns)).transpose(1, 2)
        return self.last(x + 0.5 * self.after(x))


class _Conformer(nn.Module):
    def __init__(self, channels: int, heads: int, blocks: int, classes: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(conv_norm(1, channels // 2, stride=2),
                                   conv_norm(channels // 2, channels // 2, stride=2))
        self.project = nn.Linear(channels // 2 * 20, channels)
        self.blocks = nn.Sequential(*(_ConformerBlock(channels, heads) for _ in range(blocks)))
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).permute(0, 3, 1, 2).flatten(2)
        return self.head(self.blocks(self.project(x))).log_softmax(-1)


def conformer() -> nn.Module:
    """After Conformer-S (Gulati et al. 2020), two blocks, without relative positions; 80 mel bands over time."""
    return _Conformer(144, 4, 2, 128)


def ds_cnn() -> nn.Module:
    """After Zhang et al. (2017): depthwise-separable convolutions for keywords, in 49 frames of 10 coefficients."""
    blocks = [layer for _ in range(4) for layer in (conv_norm(64, 64, groups=64), conv_norm(64, 64, 1))]
    stem = nn.Sequential(nn.Conv2d(1, 64, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(64), nn.ReLU())
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12))

