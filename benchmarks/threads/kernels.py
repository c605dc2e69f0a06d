"""How long each kernel of a network takes, on one thread and on more."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from onexn_plugins.tvm_backend.compiled import Compiled
from onexn_plugins.tvm_backend.threadpool import use_threads

# (kernel, microseconds on one thread, on all threads), in the order they run.
Profile = list[tuple[str, float, float]]


def kernel_times(networks: Mapping[int, Compiled], image: np.ndarray, rounds: int) -> Profile:
    """Medians over the rounds, in which the networks take turns.

    Args:
        networks: the same one compiled for one thread and for more, by number of threads.
        image: its input.
        rounds: turns of each.
    """
    stopwatches = {threads: _Stopwatch(network) for threads, network in networks.items()}
    for _ in range(rounds):
        for threads, stopwatch in stopwatches.items():
            use_threads(threads)
            stopwatch.run(image)
    alone, together = (stopwatches[threads].medians() for threads in sorted(stopwatches))
    return [(name, one, many) for (name, one), (_, many) in zip(alone, together, strict=True)]


class _Stopwatch:
    """Runs a network and times what its virtual machine calls."""

    def __init__(self, network: Compiled) -> None:
        self._machine = relax.VirtualMachine(network._library, tvm.cpu())
        self._machine.set_instrument(self._note)
        self._runs: list[list[tuple[str, float]]] = []
        self._started = 0

    def run(self, image: np.ndarray) -> None:
        """Twice, of which the second counts: the first pays for the caches that the other network filled."""
        for _ in range(2):
            self._runs.append([])
            self._machine["main"](tvm.runtime.tensor(image))
        del self._runs[-2]

    def medians(self) -> list[tuple[str, float]]:
        times = np.median([[microseconds for _, microseconds in run] for run in self._runs], axis=0)
        return [(name, float(value)) for (name, _), value in zip(self._runs[0], times, strict=True)
                if name.startswith("onexn_")]

    def _note(self, function: Any, name: str, before: bool, result: Any, *arguments: Any) -> None:
        if before:
            self._started = time.perf_counter_ns()
        else:
            self._runs[-1].append((name, (time.perf_counter_ns() - self._started) / 1e3))
