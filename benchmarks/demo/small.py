"""The small network, pruned three ways: the stages and the rows of its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.demo import compiled, seeds
from benchmarks.demo.digits import Digits
from benchmarks.demo.seeds import Outcome
from benchmarks.demo.settings import Settings
from onexn_plugins.progress import Progress, Stage
from onexn_plugins.report.cells import Cell
from onexn_plugins.timing import Timings, interleave

OURS, PEER = "ours", "onnxruntime"


class SmallNetwork:
    """
    Attributes:
        stages: to be run in order.
        digits: the data.
        rows: of the table, the dense network first; filled by the last stage.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder, self.digits = settings, folder, Digits.load()
        self.outcomes: list[Outcome] = []
        self.runners: dict[str, compiled.Runner] = {}
        self.rows: list[dict[str, Cell]] = []
        self.stages: list[Stage] = [
            ("Small network: train, prune three ways, fine-tune, score on held-out digits", self._train),
            ("Small network: compile, compare with torch on every held-out digit", self._compile),
            ("Latency of the small networks, interleaved with ONNX Runtime", self._time),
        ]

    @property
    def first_seed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.seed == 0]

    def _train(self, progress: Progress) -> None:
        self.outcomes = seeds.train_all(self.settings, self.folder, progress.step)
        for outcome in self.first_seed:
            rates = [other.accuracy for other in self.outcomes if other.name == outcome.name]
            progress.say(f"{outcome.name}: {np.mean(rates):.1%} of the held-out digits right")

    def _compile(self, progress: Progress) -> None:
        for outcome in self.first_seed:
            progress.step(outcome.name)
            assert outcome.onnx is not None
            assert outcome.outputs is not None
            module, _ = compiled.compiled(outcome.onnx, self.folder, "host")
            run = self.runners[f"{OURS} {outcome.name}"] = compiled.runner(module)
            self.runners[f"{PEER} {outcome.name}"] = compiled.onnxruntime_runner(outcome.onnx)
            outputs = np.concatenate([run(image[None]) for image in self.digits.held_out_images.numpy()])
            compiled.checked_difference(outcome.name, outcome.outputs, outputs)

    def _time(self, progress: Progress) -> None:
        array = self.digits.example.numpy()
        timings = interleave({name: partial(run, array) for name, run in self.runners.items()},
                             rounds=self.settings.rounds, progress=progress.rounds)
        self.rows = [_row(outcome, self.outcomes, timings, f"{PEER} {self.first_seed[0].name}")
                     for outcome in self.first_seed]


def _row(first: Outcome, outcomes: Sequence[Outcome], timings: Timings, baseline: str) -> dict[str, Cell]:
    """One way and ratio: accuracy over the seeds, the rest from the first seed."""
    rates = [outcome.accuracy for outcome in outcomes if outcome.name == first.name]
    ours, peer = f"{OURS} {first.name}", f"{PEER} {first.name}"
    faster = min(ours, peer, key=lambda name: timings.milliseconds(name).value)
    return {
        "way": first.way, "ratio": first.ratio or None, "macs": first.macs,
        "accuracy": {"value": float(np.mean(rates)), "low": min(rates), "high": max(rates)},
        "ours_ms": asdict(timings.milliseconds(ours)), "onnxruntime_ms": asdict(timings.milliseconds(peer)),
        "best_ms": asdict(timings.milliseconds(faster)), "speedup": asdict(timings.speedup(faster, baseline)),
    }
