"""Small networks, one for each way in which channels travel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.rearrangement.comparing import lively


def conv(incoming: int, outgoing: int, kernel: int = 1, **options: object) -> nn.Conv2d:
    return nn.Conv2d(incoming, outgoing, kernel, padding=kernel // 2, **options)


class Small(nn.Module):
    """A stem of 12 channels, something in between, and a head that reads them."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.stem, self.norm = conv(5, 12, 3), nn.BatchNorm2d(12)  # five input channels: no stem to leave out
        self.head, self.out = conv(channels, 8), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.between(self.norm(self.stem(images)).relu())
        return self.out(self.head(features).relu().mean((2, 3)))

    def between(self, features: Tensor) -> Tensor:
        return features


class Split(Small):
    """Chunks of equal width are read by layers of their own; one part is dropped."""

    def __init__(self) -> None:
        super().__init__(6)
        self.first, self.second = conv(5, 6, 3), conv(4, 6)

    def between(self, features: Tensor) -> Tensor:
        first, second, _ = features.split([5, 4, 3], dim=1)
        return self.first(first) * self.second(second).sigmoid()


class Chunks(Small):
    """Halves that are added are coupled; the sum is half as wide."""

    def __init__(self) -> None:
        super().__init__(6)

    def between(self, features: Tensor) -> Tensor:
        low, high = features.chunk(2, dim=1)
        return low + high.tanh()


class Concat(Small):
    """Dense connections: each layer reads everything before it."""

    def __init__(self) -> None:
        super().__init__(24)
        self.first, self.second = conv(12, 8, 3, bias=False), conv(20, 4)
        self.dense_norm = nn.BatchNorm2d(20)

    def between(self, features: Tensor) -> Tensor:
        both = self.dense_norm(torch.cat([features, self.first(features)], dim=1)).relu()
        return torch.cat([self.second(both), both], dim=1)


class Shuffle(Small):
    """Channel shuffle by hand, and by torch's own layer."""

    def __init__(self) -> None:
        super().__init__()
        self.right, self.shuffle = conv(6, 6, 3), nn.ChannelShuffle(3)

    def between(self, features: Tensor) -> Tensor:
        left, right = features.chunk(2, dim=1)
        joined = torch.cat([left, self.right(right)], dim=1)
        count, _, height, width = joined.shape
        mixed = joined.view(count, 2, 6, height, width).transpose(1, 2).reshape(count, 12, height, width)
        return self.shuffle(mixed)


class Grouped(Small):
    """Grouped, depthwise and depthwise with a multiplier."""

    def __init__(self) -> None:
        super().__init__(24)
        self.grouped, self.depthwise = conv(12, 12, 3, groups=3), conv(12, 12, 3, groups=12, bias=False)
        self.multiplied = conv(12, 24, 3, groups=12)

    def between(self, features: Tensor) -> Tensor:
        return self.multiplied(self.depthwise(self.grouped(features).relu())).relu()


class SqueezeExcite(Small):
    def __init__(self) -> None:
        super().__init__()
        self.wide = conv(12, 12, 3)
        self.reduce, self.expand = conv(12, 4), conv(4, 12)

    def between(self, features: Tensor) -> Tensor:
        features = self.wide(features)
        return features * self.expand(self.reduce(F.adaptive_avg_pool2d(features, 1)).relu()).sigmoid()


class Flattened(Small):
    """A 2×2 map is flattened before a Linear layer: four columns follow each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(32, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.head(self.norm(self.stem(images)).relu()).relu()
        return self.out(F.adaptive_avg_pool2d(features, 2).flatten(1))


class Tied(Small):
    """Two layers hold one weight, and one Linear weight is used twice, once transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = conv(12, 12, 3), conv(12, 12, 3)
        self.other.weight = self.one.weight
        self.code = nn.Linear(8, 6)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.stem(images)).relu()
        features = self.other(self.one(features).relu()).relu()
        pooled = self.head(features).mean((2, 3))
        return self.out(F.linear(self.code(pooled).relu(), self.code.weight.t()))


class Reused(Small):
    """One module is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.before = conv(12, 12, 3), conv(12, 12)

    def between(self, features: Tensor) -> Tensor:
        return self.again(self.again(self.before(features)).relu()).relu()


class Buffers(Small):
    """Buffers and plain parameters that hold one value per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.rand(12))
        self.register_buffer("unsaved", torch.rand(1, 12, 1, 1), persistent=False)
        self.scale = nn.Parameter(torch.rand(12, 1, 1))
        self.slope = nn.PReLU(12)

    def between(self, features: Tensor) -> Tensor:
        return self.slope((features - self.centre[None, :, None, None]) * self.scale + self.unsaved)


class Residual(Small):
    """Two residual blocks couple the stem, three layers and the head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(12, 8, 3, bias=False), conv(8, 12, 3, bias=False)
        self.third, self.first_norm = conv(12, 12), nn.BatchNorm2d(8, affine=False)

    def between(self, features: Tensor) -> Tensor:
        features = features + self.second(self.first_norm(self.first(features)).relu())
        return self.third(features).add_(features)


class Norms(Small):
    """Layer norm over channels, group norm, instance norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.group = nn.LayerNorm(12), nn.GroupNorm(3, 12)
        self.instance = nn.InstanceNorm2d(12, affine=True)
        self.middle, self.last = conv(12, 12, 3), conv(12, 12, 3)

    def between(self, features: Tensor) -> Tensor:
        features = self.layer(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.instance(self.last(self.group(self.middle(features)).relu()))


class Pixels(Small):
    """Padding, upsampling, and pixels that become channels: four follow each channel of the stem."""

    def __init__(self) -> None:
        super().__init__(48)

    def between(self, features: Tensor) -> Tensor:
        return F.pixel_unshuffle(F.interpolate(F.pad(features, (1, 1, 0, 0)), scale_factor=2), 2)


class Transposed(Small):
    def __init__(self) -> None:
        super().__init__(6)
        self.middle, self.up = conv(12, 8), nn.ConvTranspose2d(8, 6, 2, stride=2)

    def between(self, features: Tensor) -> Tensor:
        return self.up(self.middle(features).relu()).relu()


class TransposedGroups(Small):
    """Channels go into and out of the groups of transposed layers, one of them depthwise with two outputs each."""

    def __init__(self) -> None:
        super().__init__(16)
        self.up, self.middle = nn.ConvTranspose2d(12, 18, 3, 2, groups=3), conv(18, 8)
        self.depthwise = nn.ConvTranspose2d(8, 16, 2, groups=8)

    def between(self, features: Tensor) -> Tensor:
        return self.depthwise(self.middle(self.up(features).relu()).relu()).relu()


class Sequence(Small):
    """Layers of one dimension: dilated, grouped, transposed; a residual couples two of them."""

    def __init__(self) -> None:
        super().__init__(9)
        self.wide, self.grouped = nn.Conv1d(12, 8, 3, padding=2, dilation=2), nn.Conv1d(8, 8, 1, groups=2)
        self.back = nn.ConvTranspose1d(8, 9, 2, 2)

    def between(self, features: Tensor) -> Tensor:
        steps = self.wide(features.flatten(2)).relu()
        return self.back(steps + self.grouped(steps).relu()).relu()[..., None]


class Gated(Small):
    """Halves meet in a gated linear unit."""

    def __init__(self) -> None:
        super().__init__(6)
        self.middle = conv(12, 12)

    def between(self, features: Tensor) -> Tensor:
        return F.glu(self.middle(features), dim=1)


class Products(Small):
    """Products with plain parameters [in, out]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(12, 10) * 0.3), nn.Parameter(torch.randn(10, 12) * 0.3)

    def between(self, features: Tensor) -> Tensor:
        features = features.permute(0, 2, 3, 1) @ self.first
        return torch.matmul(features.relu(), self.second).permute(0, 3, 1, 2)


class FromInput(Small):
    """Channels that meet the input stay."""

    def __init__(self) -> None:
        super().__init__(5)
        self.middle = conv(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.middle(self.norm(self.stem(images)).relu()) + images
        return self.out(self.head(features).relu().mean((2, 3)))


class TwoInputs(nn.Module):
    """A picture and a vector in by name, a dict and a feature map out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle, self.maps = conv(5, 8, 3), conv(8, 8, 3), conv(8, 8)
        self.code, self.out = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, picture: Tensor, vector: Tensor) -> dict[str, Tensor | list[Tensor]]:
        features = self.middle(self.stem(picture).relu()).relu() + self.code(vector)[:, :, None, None]
        return {"logits": self.out(features.mean((2, 3))), "maps": [self.maps(features), features.mean(1)]}


KINDS = (Small, Split, Chunks, Concat, Shuffle, Grouped, SqueezeExcite, Flattened, Tied, Reused, Buffers, Residual,
         Norms, Pixels, Transposed, TransposedGroups, Sequence, Gated, Products, FromInput)


def pictures(seed: int = 3) -> Tensor:
    return torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(seed))


def build(kind: type[nn.Module]) -> nn.Module:
    """The network with weights of seed 0, nothing zero, in eval mode."""
    torch.manual_seed(0)
    return lively(kind()).eval()
