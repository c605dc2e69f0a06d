"""An RPC tracker and servers on this machine, as processes that end with their test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(command: Sequence[str], port: int, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen]:
    """A process that listens on the port; it and all it started are killed at the end."""
    process = subprocess.Popen(command, env=None if env is None else dict(env), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait_for(port, process)
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    """The process and the ones it forked for sessions."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tracker(port: int) -> list[str]:
    return [sys.executable, "-m", "tvm.exec.rpc_tracker", "--host", "127.0.0.1", "--port", str(port), "--port-end",
            str(port + 1)]


def server_options(port: int, tracker_port: int | None = None, key: str = "") -> list[str]:
    registered = ["--tracker", f"127.0.0.1:{tracker_port}", "--key", key] if tracker_port else []
    return ["--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1), *registered]


def server(port: int, tracker_port: int | None = None, key: str = "") -> list[str]:
    return [sys.executable, "-m", "tvm.exec.rpc_server", *server_options(port, tracker_port, key)]


def wait_for_key(tracker_port: int, key: str, seconds: float = 120) -> None:
    """Until a board has registered under that key."""
    from tvm import rpc

    end = time.monotonic() + seconds
    session = rpc.connect_tracker("127.0.0.1", tracker_port)
    while not session.summary()["queue_info"].get(key, {}).get("free"):
        assert time.monotonic() < end, f"no board registered as {key!r} within {seconds} s"
        time.sleep(0.2)
    session.close()


def _wait_for(port: int, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        assert process.poll() is None, f"it ended with {process.returncode}"
        assert time.monotonic() < end, f"nothing listened on port {port} within {seconds} s"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
