"""One part: every contender loaded in a process of its own, checked, and timed in turns."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.latency.engines import DENSE, OURS, PEAK, SPARSE, TITLES, peak
from benchmarks.latency.environments import Environments
from benchmarks.latency.parts import GOALS, Contender, Part, Variant
from benchmarks.latency.processes import Worker
from benchmarks.latency.store import Store
from onexn_plugins.errors import OneXNError
from onexn_plugins.progress import Progress
from onexn_plugins.report.cells import Cell
from onexn_plugins.timing import Timings, interleave_turns

Row = dict[str, Cell]


@dataclass(frozen=True)
class Measured:
    """
    Attributes:
        ours: a row per variant.
        engines: a row per contender that is not ours.
        versions: of the peers that took part.
        absent: what did not take part, and why.
    """

    ours: list[Row]
    engines: list[Row]
    versions: dict[str, str]
    absent: dict[str, str]


def measure(part: Part, environments: Environments, store: Store, progress: Progress, rounds: int) -> Measured:
    """Prepare, load, time. What fails is left out and named.

    Raises:
        OneXNError: our own dense build, or the measure of the machine's peak, could not take part.
    """
    versions, missing = environments.installed() if part.peers else ({}, {})
    absent = {TITLES[name]: reason for name, reason in missing.items()}
    own = {name: environments.version(name) for name in (OURS, PEAK)}
    prepared, failed = store.prepare_all(part.contenders(), versions | own, progress)
    absent |= {contender.title: reason for contender, reason in failed.items()}
    with ExitStack() as stack:
        workers: dict[Contender, Worker] = {}
        pool = stack.enter_context(ThreadPoolExecutor(os.cpu_count()))
        starting = {contender: pool.submit(_start, contender, path, environments, store)
                    for contender, path in prepared.items()}
        for contender, started in starting.items():
            progress.step(f"load {contender.title}")
            try:
                workers[contender] = started.result()
                stack.callback(workers[contender].close)
            except OneXNError as error:
                absent[contender.title] = error.reason
        for needed in part.contenders():
            if needed.engine in own and needed.variant == part.variants[0] and needed not in workers:
                raise OneXNError(needed.title, absent[needed.title], "Repair that first")
        timings = interleave_turns({contender.title: worker.turn for contender, worker in workers.items()},
                                   rounds=rounds, progress=progress.rounds)
    for contender, worker in workers.items():
        if worker.disturbance():
            progress.say(f"{contender.title} {worker.disturbance()}")
    ours = [_ours(part, contender, prepared[contender], timings, store) for contender in workers
            if contender.engine == OURS]
    engines = [_engine(contender, worker, timings) for contender, worker in workers.items() if contender.engine != OURS]
    present = {contender.engine for contender in workers}
    return Measured(ours, engines, {name: version for name, version in versions.items() if name in present}, absent)


def _start(contender: Contender, path: Path, environments: Environments, store: Store) -> Worker:
    exported = store.exported(contender.variant)
    reference = None if contender.engine == PEAK else exported.reference
    return Worker(contender.engine, environments.python(contender.engine), path, exported.image, reference)


def _ours(part: Part, contender: Contender, path: Path, timings: Timings, store: Store) -> Row:
    variant, name = contender.variant, contender.title
    compiling = json.loads((path.parent / "compiling.json").read_text(encoding="utf-8"))
    dense = Contender(OURS, part.variants[0]).title
    row: Row = {"name": variant.title, "ratio": variant.ratio, "ours_ms": asdict(timings.milliseconds(name)),
                "against_dense": asdict(timings.speedup(name, dense)), "compile_seconds": compiling["seconds"],
                "sparse_layers": f"{compiling['sparse_layers']} of {compiling['layers']}"}
    return row | _against_peers(variant, name, timings, store.exported(variant).macs) if part.peers else row


def _against_peers(variant: Variant, name: str, timings: Timings, macs: int) -> Row:
    dense = Variant(variant.network)
    peers = {peer: Contender(peer, dense).title for peer in DENSE if Contender(peer, dense).title in timings.samples}
    rivals = {peer: Contender(peer, variant).title for peer in SPARSE}
    row: Row = {f"against_{peer}": asdict(timings.speedup(name, rival)) if rival in timings.samples else None
                for peer, rival in rivals.items()}
    # The loop of the peak takes its turn in every round, so the share is a ratio within rounds too.
    share = timings.speedup(name, Contender(PEAK, dense).title)
    row["roofline"] = {end: value * macs / peak.MACS for end, value in asdict(share).items()}
    if peers:
        best = min(peers, key=lambda peer: timings.milliseconds(peers[peer]).value)
        row |= {"best": TITLES[best], "best_ms": asdict(timings.milliseconds(peers[best])),
                "speedup": asdict(timings.speedup(name, peers[best]))}
    return row | {"goal": GOALS[variant.network].get(variant.ratio) if variant.block_size == dense.block_size else None}


def _engine(contender: Contender, worker: Worker, timings: Timings) -> Row:
    return {"name": contender.title, "ms": asdict(timings.milliseconds(contender.title)),
            "difference": worker.difference, "cores_busy": float(np.median(worker.busy[1:])),
            "cores_idle": float(np.median(worker.idle[1:]))}
