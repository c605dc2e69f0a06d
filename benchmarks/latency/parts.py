"""What is measured: one part per published table, each a run of its own."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.latency.engines import DENSE, OURS, PEAK, SPARSE, TITLES

BLOCK_SIZE, PIXELS = 4, 224
RATIOS = (0.5, 0.75, 0.9)
SWEEP = (*(tenth / 10 for tenth in range(1, 10)), 0.95)
# Times faster than the best dense peer, by share of blocks removed.
GOALS = {"mobilenet_v2": {0.0: 1.0, 0.5: 2.0, 0.75: 3.2, 0.9: 4.5},
         "resnet50": {0.0: 1.0, 0.5: 1.7, 0.75: 3.2, 0.9: 6.0},
         "efficientnet_lite0": {0.0: 1.0, 0.5: 1.8, 0.75: 2.8, 0.9: 4.0},
         "mobilenet_v1": {0.75: 3.0}, "mobilenet_v3_large": {0.75: 3.0}, "mobilenet_v3_small": {0.75: 3.0}}
SPARSE_GOAL, COMPILE_GOAL = 1.5, 20.0


@dataclass(frozen=True)
class Variant:
    """A network as it is pruned: 1×`block_size`, `ratio` of the blocks removed; 0 is the dense one."""

    network: str
    ratio: float = 0.0
    block_size: int = BLOCK_SIZE

    @property
    def title(self) -> str:
        return f"1×{self.block_size}, {100 * self.ratio:g} %" if self.ratio else "dense"


@dataclass(frozen=True)
class Contender:
    """One engine running one variant."""

    engine: str
    variant: Variant

    @property
    def title(self) -> str:
        return f"{TITLES[self.engine]}, {self.variant.title}"


@dataclass(frozen=True)
class Part:
    """
    Attributes:
        name: of the part and its file.
        title: for readers.
        network: measured.
        variants: in the order of the table; the dense one first.
        peers: whether the other engines take part; without them ours is compared with its own dense build.
        rounds: turns of every contender.
    """

    name: str
    title: str
    network: str
    variants: tuple[Variant, ...]
    peers: bool
    rounds: int

    def contenders(self) -> list[Contender]:
        """In the order of their turns."""
        ours = [Contender(OURS, variant) for variant in self.variants]
        if not self.peers:
            return ours
        dense = [Contender(name, self.variants[0]) for name in DENSE]
        sparse = [Contender(name, variant) for name in SPARSE for variant in self.variants
                  if variant.ratio and variant.block_size == BLOCK_SIZE]
        return [Contender(PEAK, self.variants[0]), *ours, *dense, *sparse]


def _table(network: str, title: str, rounds: int, block_sizes: tuple[int, ...] = (BLOCK_SIZE,)) -> Part:
    pruned = [Variant(network, ratio, block_size) for block_size in block_sizes for ratio in RATIOS]
    return Part(network, title, network, (Variant(network), *pruned), True, rounds)


def _sweep(network: str, title: str, rounds: int) -> Part:
    variants = (Variant(network), *(Variant(network, ratio) for ratio in SWEEP))
    return Part(f"{network}_sweep", f"{title} against its own dense build", network, variants, False, rounds)


PARTS = {part.name: part for part in (
    _table("mobilenet_v2", "MobileNetV2", 40, (BLOCK_SIZE, 16)),
    _table("resnet50", "ResNet-50", 10),
    _table("efficientnet_lite0", "EfficientNet-Lite0", 40),
    _table("mobilenet_v1", "MobileNetV1", 40),
    _table("mobilenet_v3_large", "MobileNetV3-Large", 40),
    _table("mobilenet_v3_small", "MobileNetV3-Small", 40),
    _sweep("mobilenet_v2", "MobileNetV2", 40),
    _sweep("resnet50", "ResNet-50", 10),
)}
