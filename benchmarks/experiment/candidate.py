"""One candidate of the search: ratios and block sizes per part of the network, what it costs, how good it is."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.experiment.task import Every, copy_of, fine_tune
from onexn_plugins.layers import prunable_layers
from onexn_plugins.nni import OneXNPruner, finish
from onexn_plugins.nni.finishing import Engines
from onexn_plugins.training.data.images import ImageData, Request

# The layers of the network by the size of their images, as parts of one third of its depth.
PARTS = {"early": ("1.", "2."), "middle": ("3.", "4.", "5."), "late": ("6.", "7.", "8.", "9.")}
TARGET = 1.6   # times faster than the dense network, both compiled
MISSED = 0.5   # of accuracy lost per missing part of the target: more than any accuracy that missing it may buy
JUDGE_BY = 50  # of the training images one in so many is kept to judge candidates by, and not trained on
SHARE = 10     # fine-tuning sees one image in so many


def candidate(dense: nn.Module, data: ImageData, chosen: Mapping[str, Any], seed: int,
              beside: Engines | None = None) -> tuple[dict[str, Any], nn.Module]:
    """What a trial reports, and the network.

    Args:
        dense: the trained network; it stays as it is.
        data: all images; those held out are not looked at.
        chosen: NAME_ratio and NAME_size for each of PARTS.
        seed: of the fine-tuning.
        beside: the dense network compiled already.
    """
    started, cpu = time.time(), time.process_time()
    network = copy_of(dense)
    pruner = OneXNPruner(network, config_list(network, chosen))
    model, _ = pruner.compress()
    apart = ImageData(Training(data.training, JUDGE_BY), Every(data.training, JUDGE_BY))
    with tempfile.TemporaryDirectory() as folder:
        accuracy = fine_tune(model, apart, seed, SHARE, Path(folder))
    measured = finish(pruner, data.held_out[Request(0, [0])].images, dense=beside or dense)
    return {**chosen, **measured, "accuracy": accuracy, "default": score(accuracy, measured["faster"]),
            "seconds": round(time.time() - started, 1), "cpu_seconds": round(time.process_time() - cpu, 1),
            "load_average": round(os.getloadavg()[0], 1)}, model


def score(accuracy: float, faster: float) -> float:
    """What a tuner maximises: the accuracy where the network is fast enough, and less the more it is not."""
    return accuracy - MISSED * max(0.0, 1 - faster / TARGET)


def config_list(network: nn.Module, chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """NNI's, one entry per part."""
    layers = list(prunable_layers(network))
    return [{"op_names": [layer for layer in layers if layer.startswith(PARTS[part])],
             "sparse_ratio": round(float(chosen[f"{part}_ratio"]), 4), "block_size": int(chosen[f"{part}_size"])}
            for part in PARTS]


def uniform(ratio: float, block_size: int) -> dict[str, Any]:
    """The same everywhere."""
    return {f"{part}_{key}": value for part in PARTS for key, value in (("ratio", ratio), ("size", block_size))}


class Training(Every):
    """All images but every `step`-th."""

    def __len__(self) -> int:
        return len(self._images) - super().__len__()

    def __getitem__(self, request: Request) -> Any:  # type: ignore[override]
        rest = self._step - 1
        return self._images[Request(request.epoch, [n // rest * self._step + 1 + n % rest for n in request.numbers])]
