"""repair(): prune a network and put it right again, from unlabelled images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.repair.commit import commit
from onexn_plugins.repair.images import read_images
from onexn_plugins.repair.options import check_amount, check_ratios, depthwise_layers, layers_to_prune
from onexn_plugins.repair.plan import Budget
from onexn_plugins.repair.result import Repaired
from onexn_plugins.repair.resume import Resume, fingerprint
from onexn_plugins.repair.stages import arrange, correct, distil, gather, remove
from onexn_plugins.repair.survey import Progress
from onexn_plugins.repair.thinning import AUTO, remove_channels
from onexn_plugins.repair.work import Work


def repair(model: nn.Module, images: Any, *, block_size: int = 4,
           pruning_ratio: float | Mapping[str, float] | Budget = 0.5, channels: float | str = 0.0,
           rearrange: bool = True, distil_minutes: float = 0,
           ignored_layers: Iterable[str | nn.Module] = (), full: bool | None = None,
           preprocess: Callable[[Any], Tensor] | None = None, seed: int = 0,
           checkpoint: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Repaired:
    """Prune a model in 1×N blocks and correct what stays, in place, from unlabelled images.

    Channels are rearranged, every layer's blocks eliminated on what the layer reads, ratios chosen by what each layer's
    loss does to the outputs, and the weights that stay fitted layer by layer to what the dense network gives. The masks
    are parametrizations, as the pruners attach them: they last through fine-tuning, and `fold` makes them zeros.

    Args:
        model: any eager model; mode, hooks, device, dtype, requires_grad and Parameter objects stay.
        images: a folder of photos, a tensor [n, ...], a DataLoader, or any iterable of what forward takes. A few
            hundred like those that the model will see. Labels are not used.
        block_size: N.
        pruning_ratio: the share of all blocks that goes, and at least of their multiply-adds, where it harms least; or
            {layer: share of its blocks}, in which layers that are not named stay dense; or a `Budget`.
        channels: share of the layers' multiply-adds that goes with whole hidden channels, before the blocks and within
            pruning_ratio; "auto" for as many as pay in each layer, planned with the blocks. They are really gone:
            tensors become smaller, in multiples of block_size. 0 for blocks alone.
        rearrange: move channels first, so that blocks gather what matters.
        distil_minutes: train on the dense network's outputs and feature maps afterwards, for so long.
        ignored_layers: names or modules that stay dense.
        full: Linear layers too. By default only where there is no convolution to prune.
        preprocess: from a PIL image to a tensor, for a folder; ImageNet's usual by default.
        seed: of the rearrangement's search and of the distillation. The same seed gives the same network.
        checkpoint: a file that is written on the way; a run with the same arguments, and images in the same order, goes
            on from it.
        progress: called as progress(done, total, what).

    Raises:
        OneXNError: bad arguments or images, a budget that cannot be met, activations that are not finite. The model is
            then as before, as it is after any other exception or an interruption.
    """
    layers = layers_to_prune(model, ignored_layers, full, block_size)
    ratio = pruning_ratio if isinstance(pruning_ratio, Budget) else check_ratios(pruning_ratio, layers)
    minutes = check_amount(distil_minutes, "distil_minutes")
    share = check_channels(channels, ratio, checkpoint)
    found = read_images(images, model, preprocess)
    settings = {"block_size": block_size, "ratio": str(ratio), "rearrange": rearrange, "minutes": minutes, "seed": seed,
                "layers": list(layers), "images": found.count}
    resume = Resume(checkpoint, fingerprint(model, settings, found.batches) if checkpoint is not None else "")
    work = Work(model, found, list(layers), depthwise_layers(model, ignored_layers), block_size, seed, resume,
                progress or (lambda done, total, what: None))
    if share == AUTO and rearrange:  # before it blocks lose more, and too many channels would pay
        work.weigh()
        gather(work, ratio)
    ratio = remove_channels(work, share, ratio)
    arrange(work, rearrange, ratio)
    remove(work, ratio)
    correct(work)
    distil(work, minutes)
    commit(model, work.student, work.keep, block_size)
    return work.result


def check_channels(channels: Any, ratio: Any, checkpoint: Any) -> float | str:
    """The share of hidden channels or AUTO; OneXNError unless it is that or a number from 0 to below the ratio."""
    if channels == AUTO and isinstance(ratio, dict):
        raise OneXNError("channels", "are planned together with the ratios of blocks, and those are given by name",
                         "Give one pruning_ratio or a Budget, or a share of channels")
    share = 1.0 if channels == AUTO else check_amount(channels, "channels")
    if channels != AUTO and share >= (ratio if isinstance(ratio, float) else 1.0) and share:
        raise OneXNError("channels", f"a share of {share:g} leaves nothing to blocks", "Give less than pruning_ratio")
    if share and checkpoint is not None:
        raise OneXNError("checkpoint", "a network that loses channels no longer fits the file",
                         "Leave out channels or checkpoint")
    return AUTO if channels == AUTO else share
