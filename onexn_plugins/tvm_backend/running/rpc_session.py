"""The conversation with a board, in a process of its own; `rpc` starts it and times its silences."""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

# Timed runs between two lines of progress.
BATCHES = 10
# Where Linux tells which core it runs on: real 64-bit ARM only, an emulator on another machine has no such file.
MIDR = "/sys/devices/system/cpu/cpu0/regs/identification/midr_el1"
ARM_CORES = {
    0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72",
    0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0C: "Neoverse-N1", 0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
}


@dataclass(frozen=True)
class Job:
    """What to run, where, and how often. See rpc.run_remotely; weights is the file with the memory's beginning."""

    library: str
    weights: str
    memory_bytes: int
    host: str
    port: int
    key: str | None
    inputs: tuple[np.ndarray, ...]
    repeat: int
    threads: int


@dataclass(frozen=True)
class Progress:
    """What begins now, as "uploading"."""

    doing: str


@dataclass(frozen=True)
class Finished:
    """All went well. See rpc.RemoteRun."""

    outputs: tuple[np.ndarray, ...]
    milliseconds: tuple[float, ...]
    core: str | None


@dataclass(frozen=True)
class Failure:
    """Something did not."""

    reason: str
    fix: str


class Refused(Exception):
    """The board cannot take the job, for a reason that is known here."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.failure = Failure(reason, fix)


def serve(pipe: Connection, job: Job) -> None:
    """Do the job; every step, and the end, go into the pipe."""
    try:
        pipe.send(_converse(pipe, job))
    except Refused as refusal:
        pipe.send(refusal.failure)
    except Exception as error:  # whatever TVM's client or the board raises is the user's answer
        pipe.send(broken(error))


def broken(error: Exception) -> Failure:
    """What TVM's client or the board raised, in a line."""
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = said[-1] if said else type(error).__name__
    return Failure(f"failed: {reason[:300]}", "Check the board's own output; it needs the same TVM version")


def _converse(pipe: Connection, job: Job) -> Finished:
    def begin(doing: str) -> None:
        pipe.send(Progress(doing))

    begin(f"connecting to {job.host}:{job.port}")
    session = connect(job.host, job.port, job.key, begin)
    size = sum(Path(path).stat().st_size for path in (job.library, job.weights))
    begin(f"uploading {size / 1e6:.1f} MB")
    session.upload(job.library)
    memory = _memory(session, job)
    begin("loading the network")
    machine, device = _load(session, job)
    bound = _bind(machine, memory)
    begin("running it")
    outputs = _run(machine, device, job.inputs, bound)
    return Finished(outputs, _time(machine, device, job.repeat, begin), core_of(session))


def connect(host: str, port: int, key: str | None, begin: Any) -> Any:
    """A session with the board; `begin` gets a line where it has to be waited for."""
    from tvm import rpc

    if key is None:
        return rpc.connect(host, port)
    tracker = rpc.connect_tracker(host, port)
    queues = tracker.summary()["queue_info"]
    if key not in queues:
        known = ", ".join(sorted(queues)) or "none"
        raise Refused(f"the tracker knows no board with key {key!r}", f"Its keys: {known}. On the board run "
                      f"python -m tvm.exec.rpc_server --tracker HOST:PORT --key {key}")
    if not queues[key]["free"]:
        begin(f"waiting for a free board with key {key!r}")
    return tracker.request(key, max_retry=1)


def _load(session: Any, job: Job) -> tuple[Any, Any]:
    from tvm import relax

    session.get_function("runtime.config_threadpool")(1, job.threads)
    device = session.cpu(0)
    return relax.VirtualMachine(session.load_module(Path(job.library).name), device), device


def _memory(session: Any, job: Job) -> Any:
    """The network's memory, on the board."""
    import tvm

    memory = np.zeros(job.memory_bytes, np.uint8)
    with open(job.weights, "rb") as file:
        file.readinto(memory.data)
    return tvm.runtime.tensor(memory, session.cpu(0))


def _bind(machine: Any, memory: Any) -> Any:
    """The network on the memory; see placement."""
    machine.set_input("bind", memory)
    machine.invoke_stateful("bind")
    return machine.get_outputs("bind")


def _run(machine: Any, device: Any, inputs: tuple[np.ndarray, ...], bound: Any) -> tuple[np.ndarray, ...]:
    import tvm

    machine.set_input("main", *(tvm.runtime.tensor(array, device) for array in inputs), bound)
    machine.invoke_stateful("main")
    outputs = machine.get_outputs("main")
    return tuple(output.numpy() for output in (outputs if isinstance(outputs, (list, tuple)) else (outputs,)))


def _time(machine: Any, device: Any, repeat: int, begin: Any) -> tuple[float, ...]:
    """Milliseconds of `repeat` runs; each batch is preceded by one more run that is not counted."""
    milliseconds: list[float] = []
    started = time.monotonic()
    while len(milliseconds) < repeat:
        begin(f"timing it: {len(milliseconds)} of {repeat} runs, {time.monotonic() - started:.0f} s")
        batch = min(-(-repeat // BATCHES), repeat - len(milliseconds))
        result = machine.time_evaluator("invoke_stateful", device, number=1, repeat=batch)("main")
        milliseconds.extend(1e3 * seconds for seconds in result.results)
    return tuple(milliseconds)


def core_of(session: Any) -> str | None:
    """The core's name, by the Main ID Register (Arm Architecture Reference Manual, MIDR_EL1) in sysfs."""
    try:
        register = int(bytes(session.download(MIDR)).split(b"\0")[0], 16)
    except Exception:  # over RPC every kind of failure means the same: there is no such file
        return None
    implementer, part = register >> 24 & 0xFF, register >> 4 & 0xFFF
    return ARM_CORES.get(part, f"part 0x{part:x}") if implementer == 0x41 else f"implementer 0x{implementer:x}"
