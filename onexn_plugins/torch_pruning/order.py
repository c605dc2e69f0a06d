"""Channels first, 1×N blocks last: torch-pruning's groups refuse a model that carries block masks.

Cutting channels through blocks breaks their alignment, and a structural pruner would find that out at the first masked
layer, with others already cut. A group that is asked to prune looks at the whole model first.
"""

from __future__ import annotations

from typing import Any

import torch_pruning as tp

from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import masks

_prune = tp.dependency.Group.prune


def guard_masked_models() -> None:
    """From now on torch-pruning removes no channel of a model with block masks; everything else is as before."""
    tp.dependency.Group.prune = _refuse_masked


def _refuse_masked(self: Any, idxs: Any = None, record_history: bool = True) -> None:
    masked = list(masks(self._DG.model)) if self._DG is not None else []
    if masked:
        names = ", ".join(masked[:3]) + (f" and {len(masked) - 3} more" if len(masked) > 3 else "")
        raise OneXNError(names, "a layer with a 1×N mask cannot lose channels; nothing was removed",
                         "Prune channels first (round_to=block_size keeps whole blocks), then construct OneXNPruner; "
                         "or call fold(model) to go on without masks")
    _prune(self, idxs, record_history)
