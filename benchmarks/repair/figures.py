"""Accuracy with intervals, and differences between networks judged on the same photos."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from onexn_plugins.evaluation import Share


def accuracy(ranks: Tensor) -> dict[str, Any]:
    """Top-1 and top-5 with their 95 % intervals."""
    return {name: vars(Share.of(int((ranks < places).sum()), len(ranks)))
            for name, places in (("top1", 1), ("top5", 5))}


def paired(ranks: Tensor, baseline: Tensor) -> dict[str, float]:
    """Difference of top-1 on the same photos with its 95 % interval (normal, from the differences photo by photo)."""
    difference = (ranks < 1).double() - (baseline < 1).double()
    half = 1.96 * float(difference.std()) / math.sqrt(len(difference))
    middle = float(difference.mean())
    return {"value": middle, "low": middle - half, "high": middle + half}


def written(ranks: Tensor) -> str:
    """Ranks of all photos as text, one character each: 0 to 9, then + for all below."""
    return "".join("+" if rank > 9 else str(rank) for rank in torch.as_tensor(ranks).tolist())
