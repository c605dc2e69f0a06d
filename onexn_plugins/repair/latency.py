"""Milliseconds of every layer at several ratios, measured inside the compiled network, written once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.files import check_writable, written_aside
from onexn_plugins.inputs import tensors_in
from onexn_plugins.layers import PrunableLayer
from onexn_plugins.repair.budget import GRID
from onexn_plugins.repair.modelled import without_blocks

RATIOS = (0.0, 0.25, 0.5, 0.75, 0.9)
REPEAT = 30
ROUNDS = 3


@dataclass(frozen=True)
class LatencyTable:
    """
    Attributes:
        layers: layer -> milliseconds at each of RATIOS.
        totals: of the whole network at each of RATIOS, timed as a whole.
    """

    layers: dict[str, list[float]]
    totals: list[float]

    @property
    def prices(self) -> dict[str, np.ndarray]:
        """Milliseconds at every ratio of GRID; a higher ratio never costs more."""
        return {name: np.interp(GRID, RATIOS, np.minimum.accumulate(times)) for name, times in self.layers.items()}

    @property
    def fixed(self) -> float:
        """Median over the ratios of what the whole took beyond these layers."""
        sums = np.sum([np.minimum.accumulate(times) for times in self.layers.values()], axis=0)
        return float(np.median(np.asarray(self.totals) - sums))

    @classmethod
    def measured(cls, model: nn.Module, layers: Mapping[str, PrunableLayer], example_inputs: Any, block_size: int,
                 target: str, path: Path | None = None) -> LatencyTable:
        """The table in the file, or a new one, which goes there.

        Raises:
            OneXNError: this machine cannot run the target, or the file holds another network's table.
        """
        key = _key(model, layers, example_inputs, block_size, target)
        if path is not None and path.exists():
            return cls._read(path, key)
        if path is not None:
            check_writable(path)
        table = _measure(model, layers, example_inputs, block_size, target)
        if path is not None:
            with written_aside(path) as aside:
                aside.write_text(json.dumps({"key": key, "ratios": RATIOS, "target": target, "layers": table.layers,
                                             "totals": table.totals}, indent=1))
        return table

    @classmethod
    def _read(cls, path: Path, key: str) -> LatencyTable:
        try:
            content = json.loads(path.read_text())
            found = content["key"], {str(name): [float(each) for each in times]
                                     for name, times in content["layers"].items()}, content["totals"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise OneXNError(str(path), "is no table of latencies", "Remove it, and it is measured again") from error
        if found[0] != key or content["ratios"] != list(RATIOS):
            raise OneXNError(str(path), "holds the latencies of another network, input, block size or target",
                             "Give another file, or remove it")
        return cls(found[1], [float(each) for each in found[2]])


def check_target(target: str) -> None:
    """Raise OneXNError unless this machine can run what is compiled for the target."""
    from onexn_plugins.tvm_backend.processors import find_target, why_not_here

    processor = find_target(target)
    reason = why_not_here(processor)
    if reason or not processor.tvm_runtime:
        raise OneXNError(f"target {processor.name!r}", reason or "its networks are programs of their own",
                         "Plan with speedup=, which the target's cost model tells, or on the board itself")


def _measure(model: nn.Module, layers: Mapping[str, PrunableLayer], example_inputs: Any, block_size: int,
             target: str) -> LatencyTable:
    compiled = [_compiled(model, layers, example_inputs, block_size, target, ratio) for ratio in RATIOS]
    times: list[list[dict[str, float]]] = [[] for _ in RATIOS]
    totals: list[list[float]] = [[] for _ in RATIOS]
    for _ in range(ROUNDS):  # interleaved, so that a busy moment of the machine meets all of them
        for place, network in enumerate(compiled):
            times[place].append(_by_layer(network.profile(repeat=REPEAT), layers, target))
            totals[place].append(network.benchmark(repeat=REPEAT).median)
    best = [{name: min(each[name] for each in rounds) for name in layers} for rounds in times]
    return LatencyTable({name: [each[name] for each in best] for name in layers}, [min(each) for each in totals])


def _compiled(model: nn.Module, layers: Mapping[str, PrunableLayer], example_inputs: Any, block_size: int,
              target: str, ratio: float) -> Any:
    """The network with random blocks gone, compiled."""
    from onexn_plugins.tvm_backend import compile_module

    return compile_module(without_blocks(model, layers, block_size, ratio), example_inputs, target=target)


def _by_layer(profile: Any, layers: Mapping[str, PrunableLayer], target: str) -> dict[str, float]:
    """Milliseconds of each layer; a kernel that computes several of them is divided equally."""
    times = dict.fromkeys(layers, 0.0)
    for kernel in profile.kernels:
        own = [name for name in kernel.name.split(" + ") if name in times]
        for name in own:
            times[name] += kernel.milliseconds / len(own)
    if not any(times.values()):
        raise OneXNError(target, "none of its kernels goes by the name of a layer that is pruned",
                         "Give a budget of macs instead of latency_ms")
    return times


def _key(model: nn.Module, layers: Mapping[str, PrunableLayer], example_inputs: Any, block_size: int,
         target: str) -> str:
    """Of everything the latencies depend on but the machine: the weights' values are not among it."""
    shapes = [[name, list(tensor.shape)] for name, tensor in model.state_dict().items() if hasattr(tensor, "shape")]
    inputs = [list(tensor.shape) for tensor in tensors_in(example_inputs)]
    text = json.dumps([shapes, list(layers), inputs, block_size, target])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
