"""Runs and times a saved network on a board over TVM RPC.

The conversation is held by a process of its own (`rpc_session`): TVM's client waits without limit, and cannot be
interrupted, for a board that has lost its power. Here the silence is timed, and that process ended.
"""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.output.artefact import Artefact
from onexn_plugins.tvm_backend.processors import Target
from onexn_plugins.tvm_backend.running.rpc_session import Failure, Finished, Job, Progress, serve

CONNECT_SECONDS = 10.0
# The conversation's process has TVM to import before it can say a word.
STARTING, STARTING_SECONDS = "starting", 120.0


@dataclass(frozen=True)
class Board:
    """Where a board listens.

    Attributes:
        host, port: of an RPC tracker where there is a key, else of the board's own RPC server.
        key: the name under which the board registered with the tracker.
    """

    host: str
    port: int
    key: str | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class RemoteRun:
    """What a board computed, and how fast.

    Attributes:
        outputs: in the network's order.
        milliseconds: of each timed run, on the board's own clock; empty where none was asked for.
        core: the ARM core that the board's Linux reports, such as "Cortex-A72"; None if it reports none.
        emulated: no ARM core showed itself under an ARM network, so its times are an emulator's and say nothing.
    """

    outputs: tuple[np.ndarray, ...]
    milliseconds: tuple[float, ...]
    core: str | None
    emulated: bool


def parse_board(address: str, key: str | None = None) -> Board:
    """`HOST:PORT` as a board.

    Raises:
        OneXNError: it is no such thing.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise OneXNError(f"address {address!r}", "is not HOST:PORT", "Give the tracker's, for example 192.168.1.7:9190")
    return Board(host.strip("[]"), int(port), key)


def run_remotely(
    saved: Artefact,
    board: Board,
    inputs: Sequence[np.ndarray],
    *,
    repeat: int = 0,
    patience: float = 120.0,
    report: Callable[[str], None] = lambda note: None,
) -> RemoteRun:
    """Upload a network, run it once on these inputs and then `repeat` times for the clock.

    Args:
        saved: a network for the board's processor.
        board: where to run it.
        inputs: one array per input, in order.
        repeat: timed runs.
        patience: seconds without any sign of progress after which the board is given up.
        report: gets a line when something new begins.

    Raises:
        OneXNError: the board cannot be reached, does not know the key, refuses the network, dies or stays silent.
    """
    library = saved.library
    check_reachable(board)
    job = Job(str(library), str(saved.weights), saved.memory_bytes, board.host, board.port, board.key, tuple(inputs),
              repeat, int(saved.metadata.get("threads", 1)))
    here, there = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there, job), daemon=True)
    process.start()
    there.close()
    try:
        finished = _listen(here, process, board, patience, report)
    finally:
        here.close()
        process.kill()
        process.join()
    return RemoteRun(finished.outputs, finished.milliseconds, finished.core, is_emulated(saved.target, finished.core))


def is_emulated(target: Target, core: str | None) -> bool:
    """Whether code for this target ran where no ARM core showed itself, though one would have."""
    return target.architecture == "aarch64" and target.system == "linux" and core is None


def check_reachable(board: Board) -> None:
    """A refused or unanswered connection is known within seconds; TVM's client would try for a minute."""
    try:
        socket.create_connection((board.host, board.port), CONNECT_SECONDS).close()
    except OSError as error:
        what = "python -m tvm.exec.rpc_tracker" if board.key else "python -m tvm.exec.rpc_server on the board"
        raise OneXNError(f"RPC at {board}", f"cannot be reached: {error}", f"Start {what}, and check the address") \
            from error


def _listen(pipe: Connection, process: BaseProcess, board: Board, patience: float,
            report: Callable[[str], None]) -> Finished:
    """Follow the conversation to its end."""
    doing, limit = STARTING, STARTING_SECONDS
    while True:
        if not pipe.poll(limit):
            raise OneXNError(f"RPC at {board}", f"has been silent for {limit:g} s while {doing}",
                             "Check the board and its network, or allow more with --timeout")
        try:
            message: Any = pipe.recv()
        except EOFError:
            process.join()
            raise OneXNError(f"RPC at {board}", f"the connection broke while {doing} (exit code {process.exitcode})",
                             "Check that the board has the same TVM version and enough memory") from None
        if isinstance(message, Progress):
            doing, limit = message.doing, patience
            report(doing)
        elif isinstance(message, Failure):
            raise OneXNError(f"RPC at {board}", f"{message.reason} (while {doing})", message.fix)
        else:
            return message
