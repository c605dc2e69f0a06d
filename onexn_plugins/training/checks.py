"""What is checked before a run touches the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.inputs import call_model, keep_state
from onexn_plugins.training.data.images import ImageData, Request, check_count
from onexn_plugins.training.evaluation import check_classes
from onexn_plugins.training.recipe import Recipe

FIRST = Request(0, [0])


def check_run(model: nn.Module, data: ImageData, recipe: Recipe, folder: Path, ranks: int, workers: int) -> None:
    """Make the folder, and see that batches can be shared out and that the model tells the images' classes.

    Raises:
        OneXNError: one of them is not so; the model is as it was.
    """
    check_count("workers", workers, 0)
    if recipe.batch_size % ranks:
        raise OneXNError("batch_size", f"{recipe.batch_size} cannot be shared out among {ranks} processes",
                         f"Use a multiple of {ranks}")
    if len(data.training) < recipe.batch_size:
        raise OneXNError("batch_size", f"{recipe.batch_size} is more than the {len(data.training)} images",
                         "Use a smaller batch or more images")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OneXNError(str(folder), f"cannot be made: {error.strerror}", "Give another folder") from error
    with keep_state(model):
        check_classes(call_model(model.eval(), data.held_out[FIRST].images), data.training)


def described(data: ImageData) -> dict[str, Any]:
    """What tells a run's images from others: a run goes on with equal ones alone."""
    return {"training images": len(data.training), "held-out images": len(data.held_out),
            "shape": list(data.training.shape), "classes": list(data.training.classes)}
