"""The rows of the tables: what is trained, with which settings; each row and seed is one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from onexn_plugins.training import Recipe

NETWORK = "mobilenet_v2_small"
START_EPOCHS, TUNE_EPOCHS = 5, 1
HARD_RATIOS = (0.75, 0.9)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run.

    Attributes:
        network: a name of `networks.NETWORKS`.
        method: a name of `methods.METHODS`.
        pruning_ratio: fraction of the prunable layers' weights; for filters, as many multiply-accumulates are cut,
            but for "filters_at_ratio" that fraction of the filters.
        block_size: N, where the method has blocks.
        rearrange: "none", "sort" or "swap".
        epochs: of fine-tuning; for "start", of training from nothing.
        seed: of the fine-tuning.
    """

    network: str = NETWORK
    method: str = "dense"
    pruning_ratio: float = 0.0
    block_size: int = 4
    rearrange: str = "none"
    epochs: int = TUNE_EPOCHS
    seed: int = 0

    @property
    def name(self) -> str:
        """Unique, and fit for a file."""
        parts = [self.network, self.method]
        if self.method.startswith("block"):
            parts.append(f"1x{self.block_size}")
            if self.rearrange != "none":
                parts.append(self.rearrange)
        if self.pruning_ratio:
            parts.append(f"p{self.pruning_ratio:g}")
        return "-".join([*parts, f"e{self.epochs}", f"s{self.seed}"])

    @property
    def recipe(self) -> Recipe:
        """The same for every method, dense included; a start takes larger steps."""
        return Recipe(epochs=self.epochs, batch_size=128, eval_batch_size=500, nesterov=True, weight_decay=5e-4,
                      lr=0.4 if self.method == "start" else 0.1, schedule="onecycle", label_smoothing=0.05,
                      seed=self.seed)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def start_of(row: Row) -> Row:
    """The training from nothing whose weights the row starts from."""
    return Row(network=row.network, method="start", epochs=START_EPOCHS)


def grid() -> Iterator[Row]:
    """Every run, each once, the most telling first: a stopped grid has whole tables."""
    yield from dict.fromkeys(_by_importance())


def _by_importance() -> Iterator[Row]:
    """The hard ratios of all seeds; blocks and filters with a teacher; one seed of all else; more seeds of it."""
    yield start_of(Row())
    for seed in range(3):
        yield Row(seed=seed)
        for ratio in HARD_RATIOS[::-1]:
            yield from _deciding(ratio, seed)
    for seed in range(3):
        for ratio in HARD_RATIOS[::-1]:
            yield from _distilled(ratio, seed)
    for seed in range(3):
        for ratio in HARD_RATIOS[::-1]:
            yield from _other_starts(ratio, seed)
        yield from _as_fast(seed)
        yield from _deciding(0.5, seed)
        for block_size in (2, 8, 16, 32):
            for rearrange in ("none", "swap"):
                yield Row(method="block_l1", pruning_ratio=0.5, block_size=block_size, rearrange=rearrange, seed=seed)
        for ratio in HARD_RATIOS[::-1]:
            yield from _compared(ratio, seed)
            yield from _improved(ratio, seed)
            yield from _controls(ratio, seed)
        for ratio in (0.5, 0.3, 0.7):
            yield from _compared(ratio, seed)
        yield from _controls(0.5, seed)
        for method in ("filters_l1_nni", "filters_fpgm_nni"):  # which cannot cut this network further
            yield Row(method=method, pruning_ratio=0.3, seed=seed)


def _deciding(ratio: float, seed: int) -> Iterator[Row]:
    """Blocks, single weights and filters at equal work."""
    yield Row(method="block_l1", pruning_ratio=ratio, seed=seed)
    yield Row(method="block_l1", pruning_ratio=ratio, rearrange="swap", seed=seed)
    for method in ("weights_level", "filters_magnitude"):
        yield Row(method=method, pruning_ratio=ratio, seed=seed)


def _distilled(ratio: float, seed: int) -> Iterator[Row]:
    """Blocks and filters with the dense network as teacher."""
    yield Row(method="block_distil", pruning_ratio=ratio, rearrange="swap", seed=seed)
    yield Row(method="filters_distil", pruning_ratio=ratio, seed=seed)


def _compared(ratio: float, seed: int) -> Iterator[Row]:
    """Blocks, single weights and filters; blocks at random, and filters as the paper compares them."""
    yield from _deciding(ratio, seed)
    for method in ("block_random", "filters_at_ratio"):
        yield Row(method=method, pruning_ratio=ratio, seed=seed)


def _improved(ratio: float, seed: int) -> Iterator[Row]:
    """What may be better than the paper's pruning at once."""
    for method in ("block_gradual", "block_regrow", "block_srste"):
        yield Row(method=method, pruning_ratio=ratio, rearrange="swap", seed=seed)


def _other_starts(ratio: float, seed: int) -> Iterator[Row]:
    """Other starts, alternating phases (AC/DC), uniform rows (SUBP)."""
    for method in ("block_repair", "block_channels", "block_acdc", "block_uniform"):
        yield Row(method=method, pruning_ratio=ratio, rearrange="swap", seed=seed)


def _as_fast(seed: int) -> Iterator[Row]:
    """Channels and blocks at about the multiply-adds and the latency of filters without 90 %: where channels go, fewer
    are left than blocks of that ratio alone would leave."""
    yield Row(method="block_channels", pruning_ratio=0.85, rearrange="swap", seed=seed)


def _controls(ratio: float, seed: int) -> Iterator[Row]:
    """The paper's sort, single kernels (its Table 2), and torch-pruning's other norm."""
    yield Row(method="block_l1", pruning_ratio=ratio, rearrange="sort", seed=seed)
    for method in ("kernels_l1", "kernels_random", "filters_group_norm"):
        yield Row(method=method, pruning_ratio=ratio, seed=seed)
