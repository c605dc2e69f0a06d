"""How much the demo does. `--fast` shrinks the numbers and runs the same code."""

from __future__ import annotations

from dataclasses import dataclass

from onexn_plugins.report.cells import STYLES

BLOCK_SIZE = 4
# A compiled module may differ from torch by this share of the output's scale (float32 sums in another order).
DIFFERENCE_BAR = 1e-4
# The proof compares in float64; correct rearrangements score about 1e-15, the weakest mistake 8e-6.
PROOF_BAR = 1e-9


@dataclass(frozen=True)
class Settings:
    """
    Attributes:
        resolution: EfficientNet-Lite0's input, pixels a side.
        ratios: fractions of blocks pruned.
        method: of the rearrangement.
        rounds: turns of every contender in the interleaved timing.
        digits_ratios: fractions pruned of the small network.
        seeds: small networks trained, each from its own initialisation.
        width: channels of the small network's stem.
        epochs, tuning_epochs: passes over the training digits, before and after pruning.
    """

    resolution: int = 224
    ratios: tuple[float, ...] = (0.5, 0.75)
    method: str = "swap"
    rounds: int = 60
    digits_ratios: tuple[float, ...] = (0.5, 0.75)
    seeds: int = 4
    width: int = 48
    epochs: int = 6
    tuning_epochs: int = 4


FULL = Settings()
FAST = Settings(resolution=64, ratios=(0.75,), method="sort", rounds=3, digits_ratios=(0.75,), seeds=1, width=16,
                epochs=1, tuning_epochs=1)


def named(way: str, ratio: float) -> str:
    """"1×4 blocks, 75 %"; the dense network has no ratio."""
    return f"{way}, {STYLES['ratio'](ratio)}" if ratio else way
