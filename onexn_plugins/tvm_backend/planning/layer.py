"""What became of a layer: the line of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Layer:
    """What became of one layer, for reports.

    Attributes:
        name: as in the trained model, where the file tells.
        operator: "conv", "depthwise", "conv3d", "depthwise3d", "transposed", "linear", or those joined by "+" for the
            first of several computed together.
        shape: of the weight.
        sparse, block_size, kept: see Decision; block_size is None where TVM lowers the layer without our kernels.
        tile: output channels × vectors of pixels held in registers, as "4x4".
        macs, dense_macs: multiply-accumulates of one run, with and without the skipped blocks (and taps).
        expected_speedup: how many times faster than our own dense kernel the cost model expects it; 1 where dense.
        reason: why it is sparse, dense, or lowered without our kernels.
        family: the kernel family that computes it; None where TVM lowers it.
        refused: (what, why not) of every fusion and kernel family that was asked before.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    sparse: bool
    block_size: int | None
    tile: str | None
    kept: float
    macs: int
    dense_macs: int
    expected_speedup: float
    reason: str
    family: str | None = None
    refused: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Layer:
        """The layer again.

        Raises:
            TypeError, KeyError, ValueError: the entry describes none.
        """
        refused = tuple((str(what), str(why)) for what, why in entry["refused"])
        return cls(**{**entry, "shape": tuple(entry["shape"]), "refused": refused})
