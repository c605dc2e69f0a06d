"""What `repair` tells."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """What one step brought, on calibration images.

    Attributes:
        name: of the step.
        kl: divergence from the dense network's outputs (see `Divergence`).
        agreement: share of images whose first class is the dense network's; None where there are no classes.
        macs: multiply-adds that are left, of one forward pass on one image.
        seconds: it took.
        kept: False where it would have made things worse, and was taken back.
    """

    name: str
    kl: float
    agreement: float | None
    macs: int
    seconds: float
    kept: bool = True


@dataclass
class Repaired:
    """What `repair` did.

    Attributes:
        steps: in order.
        ratios: layer -> share of its blocks that went.
        channels: layer -> share of its output channels that went whole, before the blocks.
        images, skipped: how many calibrated, and files that could not be read, with the reason.
        notes: what else the caller should know, in sentences.
        retained_before, retained_after: fraction of L1 that pruning every layer alike would keep, before and after
            rearranging; None without it.
    """

    steps: list[Step] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    channels: dict[str, float] = field(default_factory=dict)
    images: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    retained_before: float | None = None
    retained_after: float | None = None
