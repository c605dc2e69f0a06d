"""One part: every contender loaded in a process of its own, checked, and timed in turns."""

from __future__ import annotations

import json
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
        versions: of the engines that took part.
        absent: why the others did not.
    """

    ours: list[Row]
    engines: list[Row]
    versions: dict[str, str]
    absent: dict[str, str]


def measure(part: Part, environments: Environments, store: Store, progress: Progress, rounds: int) -> Measured:
    """Prepare, load, time. A peer that fails is left out and named; ours may not fail.

    Raises:
        OneXNError: our own package, or the measure of the machine's peak, could not take part.
    """
    versions, absent = environments.installed() if part.peers else ({}, {})
    own = {name: environments.version(name) for name in (OURS, PEAK)}
    prepared, failed = store.prepare_all(part.contenders(), versions | own, progress)
    absent |= failed
    with ExitStack() as stack:
        workers: dict[Contender, Worker] = {}
        for contender, path in prepared.items():
            progress.step(f"load {contender.variant.title} in {TITLES.get(contender.engine, contender.engine)}")
            try:
                workers[contender] = _start(contender, path, environments, store)
                stack.callback(workers[contender].close)
            except OneXNError as error:
                if contender.engine in own:
                    raise
                absent[contender.engine] = str(error)
        if set(absent) & set(own):
            raise OneXNError(part.title, next(absent[name] for name in own if name in absent), "Repair that first")
        timings = interleave_turns({key(contender): worker.turn for contender, worker in workers.items()},
                                   rounds=rounds, progress=progress.rounds)
    for worker in workers.values():
        if worker.disturbance():
            progress.say(f"{TITLES.get(worker.name, worker.name)} {worker.disturbance()}")
    ours = [_ours(part, contender, path, timings, store) for contender, path in prepared.items()
            if contender.engine == OURS]
    engines = [_engine(contender, worker, timings) for contender, worker in workers.items() if contender.engine != OURS]
    return Measured(ours, engines, {name: version for name, version in versions.items() if name not in absent}, absent)


def key(contender: Contender) -> str:
    """Its name among the timings."""
    return f"{contender.engine} {contender.variant.title}"


def _start(contender: Contender, path: Path, environments: Environments, store: Store) -> Worker:
    exported = store.exported(contender.variant)
    reference = None if contender.engine == PEAK else exported.reference
    return Worker(contender.engine, environments.python(contender.engine), path, exported.image, reference)


def _ours(part: Part, contender: Contender, path: Path, timings: Timings, store: Store) -> Row:
    variant, name = contender.variant, key(contender)
    compiling = json.loads((path.parent / "compiling.json").read_text(encoding="utf-8"))
    dense = key(Contender(OURS, part.variants[0]))
    row: Row = {"name": variant.title, "ratio": variant.ratio, "ours_ms": asdict(timings.milliseconds(name)),
                "against_dense": asdict(timings.speedup(name, dense)), "compile_seconds": compiling["seconds"],
                "sparse_layers": f"{compiling['sparse_layers']} of {compiling['layers']}"}
    return row | _against_peers(variant, name, timings, store.exported(variant).macs) if part.peers else row


def _against_peers(variant: Variant, name: str, timings: Timings, macs: int) -> Row:
    dense = Variant(variant.network)
    peers = {peer: key(Contender(peer, dense)) for peer in DENSE if key(Contender(peer, dense)) in timings.samples}
    rivals = {peer: key(Contender(peer, variant)) for peer in SPARSE}
    row: Row = {f"against_{peer}": asdict(timings.speedup(name, rival)) if rival in timings.samples else None
                for peer, rival in rivals.items()}
    # The loop of the peak takes its turn in every round, so the share is a ratio within rounds too.
    share = timings.speedup(name, key(Contender(PEAK, dense)))
    row["roofline"] = {end: value * macs / peak.MACS for end, value in asdict(share).items()}
    if peers:
        best = min(peers, key=lambda peer: timings.milliseconds(peers[peer]).value)
        row |= {"best": TITLES[best], "best_ms": asdict(timings.milliseconds(peers[best])),
                "speedup": asdict(timings.speedup(name, peers[best]))}
    return row | {"goal": GOALS[variant.network].get(variant.ratio) if variant.block_size == dense.block_size else None}


def _engine(contender: Contender, worker: Worker, timings: Timings) -> Row:
    title = "Peak of the core" if contender.engine == PEAK else TITLES[contender.engine]
    return {"name": f"{title}, {contender.variant.title}", "ms": asdict(timings.milliseconds(key(contender))),
            "difference": worker.difference, "cores_busy": float(np.median(worker.busy[1:])),
            "cores_idle": float(np.median(worker.idle[1:]))}
