"""The committed runs as numbers: means over seeds, and differences paired by seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.accuracy.rows import Row
from onexn_plugins.report.cells import Cell

# What one row of a table is: all settings of a run but the seed.
Key = tuple[str, str, float, int, str, int]
Runs = dict[Key, dict[int, dict[str, Any]]]

TITLES = {
    "dense": "dense", "block_l1": "1×N blocks, L1", "block_random": "1×N blocks, at random",
    "block_gradual": "1×N blocks, cubic schedule", "block_regrow": "1×N blocks, cubic, may come back",
    "block_srste": "1×N blocks, cubic, SR-STE", "block_distil": "1×N blocks, distilled",
    "block_repair": "1×N blocks, repaired", "block_channels": "channels and 1×N blocks, repaired",
    "block_acdc": "1×N blocks, AC/DC", "block_uniform": "1×N blocks, SUBP's score, uniform rows",
    "kernels_l1": "single kernels, L1", "kernels_random": "single kernels, at random",
    "weights_level": "single weights (NNI LevelPruner)", "filters_magnitude": "filters, equal MACs (torch-pruning, L1)",
    "filters_at_ratio": "filters, equal ratio (torch-pruning, L1)",
    "filters_l1_nni": "filters, equal MACs (NNI L1Norm)", "filters_fpgm_nni": "filters, equal MACs (NNI FPGM)",
    "filters_distil": "filters, equal MACs, distilled",
    "filters_group_norm": "filters, equal MACs (torch-pruning, group norm)",
}


def read_runs(folder: Path) -> Runs:
    """Every run of the folder, by its settings and seed."""
    runs: Runs = {}
    for path in sorted(folder.glob("*.json")):
        values = json.loads(path.read_text(encoding="utf-8"))
        row = Row(**values["row"])
        runs.setdefault(key_of(row), {})[row.seed] = values
    return runs


def key_of(row: Row) -> Key:
    return row.network, row.method, row.pruning_ratio, row.block_size, row.rearrange, row.epochs


def find(runs: Runs, row: Row) -> dict[int, dict[str, Any]]:
    """The row's runs by seed; empty where none is done."""
    return runs.get(key_of(row), {})


def spread(values: Iterable[float]) -> Cell:
    """Their mean; with lowest and highest where there are several, None where there is none."""
    values = list(values)
    if not values:
        return None
    mean = sum(values) / len(values)
    return mean if len(values) == 1 else {"value": mean, "low": min(values), "high": max(values)}


def change(runs: Mapping[int, Mapping[str, Any]], others: Mapping[int, Mapping[str, Any]]) -> Cell:
    """Top-1 points above `others`, over the seeds that both have."""
    return spread(100 * (runs[seed]["top1"] - others[seed]["top1"]) for seed in sorted(set(runs) & set(others)))


def title(method: str, block_size: int) -> str:
    return TITLES[method].replace("1×N", f"1×{block_size}")
