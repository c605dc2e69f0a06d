"""1×N pruning for torch-pruning (https://github.com/VainF/Torch-Pruning): a pruner and importances in its own words.

    pruner = OneXNPruner(model, example_inputs, pruning_ratio=0.5, block_size=4)
    pruner.step()

This package bears the name of the toolkit it adapts; `import torch_pruning` in here always means the toolkit.
"""

from __future__ import annotations

try:
    import torch_pruning as tp
except ModuleNotFoundError as error:
    from onexn_plugins.errors import MissingDependencyError

    raise MissingDependencyError("torch-pruning", "torch-pruning") from error

from onexn_plugins.errors import OneXNError
from onexn_plugins.torch_pruning.groups import BlockGroup
from onexn_plugins.torch_pruning.importance import (
    BlockImportance,
    BlockL1Importance,
    BlockRandomImportance,
    BlockScoreImportance,
)
from onexn_plugins.torch_pruning.order import guard_masked_models
from onexn_plugins.torch_pruning.pruner import OneXNPruner

__all__ = ["BlockGroup", "BlockImportance", "BlockL1Importance", "BlockRandomImportance", "BlockScoreImportance",
           "OneXNPruner", "register"]


def register(*, replace: bool = False) -> None:
    """Make tp.pruner.OneXNPruner, tp.importance.BlockL1Importance and tp.importance.BlockRandomImportance resolve.

    torch-pruning has no registry; its own pruners are plain module attributes, and so are these. Importing this
    package changes nothing in torch-pruning: only this call does, and a second one is harmless. Like the first
    OneXNPruner, it also makes torch-pruning's groups refuse to cut channels of a model with block masks.

    Args:
        replace: take the name even where something else holds it.

    Raises:
        OneXNError: something else holds one of the names; nothing is registered then.
    """
    places = [(tp.pruner, OneXNPruner), (tp.importance, BlockL1Importance), (tp.importance, BlockRandomImportance)]
    for module, registered in places:
        holder = getattr(module, registered.__name__, registered)
        if holder is not registered and not replace:
            raise OneXNError(f"{module.__name__}.{registered.__name__}", f"the name is taken by {holder!r}",
                             "Call register(replace=True) to take it over")
    for module, registered in places:
        setattr(module, registered.__name__, registered)
    guard_masked_models()
