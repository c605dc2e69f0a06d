"""The search: every distinct problem of a network, every candidate for it, one trial after the other, each stored."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.kernels.problem import Choice
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.planning.fusion import KernelCall
from onexn_plugins.tvm_backend.planning.network import plan_file
from onexn_plugins.tvm_backend.processors import Target, find_target, why_not_here
from onexn_plugins.tvm_backend.running.compiled import checked_threads
from onexn_plugins.tvm_backend.running.rpc import Board, parse_board
from onexn_plugins.tvm_backend.tuning.bench import Bench
from onexn_plugins.tvm_backend.tuning.candidates import candidates
from onexn_plugins.tvm_backend.tuning.database import Database, Entry, Machine
from onexn_plugins.tvm_backend.tuning.decision import Attempt, Trial, judge, next_attempt, winner
from onexn_plugins.tvm_backend.tuning.problem import problem_of
from onexn_plugins.tvm_backend.tuning.worker import Order, Setup, Unusable

# Gets (problems done, problems in all, what is being done).
Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Found:
    """What became of one problem.

    Attributes:
        layers: the network's layers that pose it.
        problem: in words.
        default, best: what is chosen without and with tuning, as "sparse 4x4".
        default_us, best_us: medians of both, measured in turn; None where nothing was measured.
        gain: share of the default's time that the best one saves; 0 where the default stays.
        tried: candidates measured, now or before.
        measured: trials made now.
        failed: candidates that could not be built or run, with the reason.
    """

    layers: tuple[str, ...]
    problem: str
    default: str
    best: str
    default_us: float | None
    best_us: float | None
    gain: float
    tried: int
    measured: int
    failed: tuple[str, ...]


@dataclass(frozen=True)
class TuningReport:
    """What a search found.

    Attributes:
        database: the file that holds it.
        target: as it was asked for.
        threads: that kernels ran on.
        emulated: an emulator's times were taken, which choose nothing.
        finished: False where the time given did not do; the same call goes on.
        problems: the distinct problems of the network, in its order.
    """

    database: str
    target: str
    threads: int
    emulated: bool
    finished: bool
    problems: tuple[Found, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Job:
    """A distinct problem of the network."""

    problem: str
    request: Request
    default: Choice
    layers: tuple[str, ...]


def tune(
    onnx_path: str | os.PathLike[str],
    *,
    target: str = "host",
    database: str | os.PathLike[str],
    trials: int = 16,
    threads: int = 1,
    rpc: str | None = None,
    key: str | None = None,
    timeout: float = 120.0,
    seconds: float | None = None,
    progress: Report = lambda done, total, note: None,
) -> TuningReport:
    """Measure other tiles and block sizes for every layer; compile_model(tuning=database) then takes the faster ones.

    Every trial is stored at once: a search that was stopped goes on where it was, and what is known is not measured
    again. A candidate replaces the default only where it is clearly faster, twice.

    Args:
        onnx_path: the network, as compile_model takes it.
        target: one of `targets()`; another one than "host" runs on a board.
        database: the file to go on with, or a new one; several networks, targets and machines may share it, but one
            search at a time.
        trials: candidates per problem.
        threads: that kernels run on.
        rpc: the board's address "HOST:PORT", its tracker's where there is a key; None measures here.
        key: the name under which the board registered with its tracker.
        timeout: seconds of silence after which a kernel, or the board, is given up.
        seconds: stop after about so many, unfinished.
        progress: called as progress(problems done, problems in all, note).

    Raises:
        OneXNError: the network, target, database or board cannot be used, or the board is lost.
    """
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1 or not timeout > 0:
        raise OneXNError("tune", "trials and timeout have to be positive", "Leave them out for 16 and 120")
    processor = find_target(target)
    board = _place(processor, rpc, key)
    checked_threads(threads)
    book = Database.open(os.fspath(database))
    jobs = _jobs(onnx_path, processor, threads)
    end = None if seconds is None else time.monotonic() + seconds
    with Bench(Setup(processor, board, threads), timeout) as bench:
        machine = Machine.of(processor, threads, bench.is_emulated())
        search = _Search(bench, book, machine, trials, end)
        found = [search.solve(number, job, partial(progress, number, len(jobs))) for number, job in enumerate(jobs)]
    return TuningReport(str(database), target, threads, machine.emulated, search.finished, tuple(found))


class _Search:
    """One run of the search over the problems of a network."""

    def __init__(self, bench: Bench, book: Database, machine: Machine, most: int,
                 end: float | None) -> None:
        self._bench, self._book, self._machine = bench, book, machine
        self._most, self._end = most, end
        self.finished = True

    def solve(self, number: int, job: _Job, say: Callable[[str], None]) -> Found:
        """Make the trials that are missing for a problem."""
        entry = self._book.find(self._machine, job.problem, job.default)
        entry = entry or Entry(self._machine, job.problem, job.default)
        before = len(entry.trials)
        choices = [] if self._is_late() else candidates(job.request, job.default, self._most)
        while not self._is_late() and (attempt := next_attempt(choices, entry.trials)) is not None:
            say(f"{job.layers[0]}: {attempt.choice}{', once more' if attempt.second else ''}")
            entry = self._store(replace(entry, trials=(*entry.trials, self._try(number, job, attempt))))
        if self._is_late():
            self.finished = False
        elif not choices:  # nothing else to try is an answer too
            self._store(entry)
        return _found(job, entry, len(entry.trials) - before)

    def _is_late(self) -> bool:
        return self._end is not None and time.monotonic() > self._end

    def _store(self, entry: Entry) -> Entry:
        self._book.put(entry)
        self._book.save()
        return entry

    def _try(self, number: int, job: _Job, attempt: Attempt) -> Trial:
        answer = self._bench.measure(Order(number, job.request, job.default, attempt.choice, attempt.pairs))
        if isinstance(answer, Unusable):
            return Trial(attempt.choice, attempt.second, failed=answer.reason)
        return judge(attempt, answer.default, answer.candidate)


def _place(processor: Target, rpc: str | None, key: str | None) -> Board | None:
    """The board to measure on; None for this machine."""
    if not processor.tvm_runtime:
        raise OneXNError(f"target {processor.name!r}", "has no TVM runtime, so there is no RPC server for it",
                         "Tune for a target that has one, for example cortex-a53")
    if rpc is not None:
        return parse_board(rpc, key)
    reason = why_not_here(processor)
    if reason:
        raise OneXNError(f"target {processor.name!r}", f"cannot be measured here: {reason}",
                         "Give the address of a board with rpc (on the command line --rpc HOST:PORT)")
    if key is not None:
        raise OneXNError("key", "is a board's name with its tracker, and there is no address", "Give rpc as well")
    return None


def _jobs(onnx_path: str | os.PathLike[str], processor: Target, threads: int = 1) -> list[_Job]:
    """The distinct problems of a network, in its order."""
    jobs: dict[tuple[str, Choice], _Job] = {}
    for call in _calls(onnx_path, processor, threads):
        request, choice = call.request.in_place(False), call.request.first.choice  # measured on buffers of their own
        assert choice is not None
        problem = problem_of(request)
        job = jobs.get((problem, choice)) or _Job(problem, request, choice, ())
        jobs[problem, choice] = replace(job, layers=(*job.layers, call.layers[0].name))
    return list(jobs.values())


def _calls(onnx_path: str | os.PathLike[str], processor: Target, threads: int) -> Iterator[KernelCall]:
    order = plan_file(onnx_path, processor, threads=threads).order
    return (item for item in order if isinstance(item, KernelCall) and item.request.first.choice is not None)


def _found(job: _Job, entry: Entry, measured: int) -> Found:
    best = winner(entry.trials)
    timed = [trial for trial in entry.trials if trial.failed is None]
    shown = best or max(timed, key=lambda trial: trial.pairs, default=None)
    default_us = shown.default_us if shown else None
    return Found(job.layers, job.problem, str(job.default), str(entry.choice), default_us,
                 best.us if best else default_us, 1 - best.ratio if best else 0.0,
                 len({trial.choice for trial in entry.trials}), measured,
                 tuple(f"{trial.choice}: {trial.failed}" for trial in entry.trials if trial.failed))
