"""Trains, prunes three ways, fine-tunes and scores the small network from several seeds, a process for each core."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue

import numpy as np
import torch

from benchmarks.demo import three_ways
from benchmarks.demo.digits import Digits, outputs, small_network, train
from benchmarks.demo.settings import BLOCK_SIZE, Settings, named
from onexn_plugins import export_onnx, measure

PEAK_RATE, TUNING_RATE = 0.1, 0.05
WAYS = (three_ways.BLOCKS, three_ways.WEIGHTS, three_ways.FILTERS)


@dataclass(frozen=True)
class Outcome:
    """One small network after fine-tuning.

    Attributes:
        way, ratio, seed: how it was made.
        accuracy: fraction of the held-out digits named rightly.
        macs: multiply-accumulates of one image.
        onnx: the exported network, from the first seed only.
        outputs: its outputs for the held-out digits, float32 [n, 10], from the first seed only.
    """

    way: str
    ratio: float
    seed: int
    accuracy: float
    macs: int
    onnx: Path | None = None
    outputs: np.ndarray | None = None

    @property
    def name(self) -> str:
        return named(self.way, self.ratio)


def train_all(settings: Settings, folder: Path, progress: Callable[[str], None]) -> list[Outcome]:
    """Every way and ratio from every seed.

    Args:
        settings: seeds, ratios, epochs, width.
        folder: where the first seed's networks are exported to.
        progress: told what was just finished, and how much of the whole that is.
    """
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    workers = min(settings.seeds, os.cpu_count() or 1)
    with context.Manager() as manager, ProcessPoolExecutor(workers, context) as pool:
        news = manager.Queue()
        running = {pool.submit(run_seed, seed, settings, folder, news) for seed in range(settings.seeds)}
        outcomes: list[Outcome] = []
        epochs, total = 0, settings.seeds * (settings.epochs + len(_plan(settings)) * settings.tuning_epochs)
        while running:
            finished, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            outcomes += [outcome for future in finished for outcome in future.result()]
            for what in _waiting(news):
                epochs += 1
                progress(f"{epochs} of {total} epochs ({what})")
    return outcomes


def run_seed(seed: int, settings: Settings, folder: Path, news: Queue[str]) -> list[Outcome]:
    """Train one network, then prune and fine-tune copies of it, all with the same epochs, rate and order of images."""
    torch.set_num_threads(1)  # one process per core already
    torch.manual_seed(seed)
    digits, model = Digits.load(), small_network(settings.width)

    def tell(what: str) -> Callable[[int], None]:
        return lambda epoch: news.put(f"seed {seed}: {what}")

    train(model, digits, settings.epochs, peak_rate=PEAK_RATE, seed=seed, progress=tell("training"))
    outcomes = []
    for way, ratio in _plan(settings):
        pruned, finish = three_ways.prune(way, model, digits.example, ratio)
        train(pruned, digits, settings.tuning_epochs, peak_rate=TUNING_RATE, seed=1000 + seed,
              progress=tell(f"fine-tuning {named(way, ratio)}"))
        outcomes.append(_outcome(finish(), digits, way, ratio, seed, folder))
    return outcomes


def _plan(settings: Settings) -> list[tuple[str, float]]:
    """Every way with its ratio, the dense network first."""
    return [(three_ways.DENSE, 0.0), *((way, ratio) for ratio in settings.digits_ratios for way in WAYS)]


def _outcome(model: torch.nn.Module, digits: Digits, way: str, ratio: float, seed: int, folder: Path) -> Outcome:
    report, scores = measure(model, BLOCK_SIZE, digits.example), outputs(model, digits.held_out_images)
    right = float((scores.argmax(1) == digits.held_out_labels).double().mean())
    outcome = Outcome(way, ratio, seed, right, report.macs or 0)
    if seed > 0:
        return outcome
    path = folder / f"digits_{WAYS.index(way) if way in WAYS else 'dense'}_{100 * ratio:.0f}.onnx"
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's types leave it out
    export_onnx(model, digits.example, path, block_size=BLOCK_SIZE)
    return replace(outcome, onnx=path, outputs=scores.numpy())


def _waiting(news: Queue[str]) -> Iterator[str]:
    """What the workers said since the last look."""
    while True:
        try:
            yield news.get_nowait()
        except Empty:
            return
