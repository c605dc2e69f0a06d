"""Boards over RPC: what they compute, and every way they can let one down, in bounded time."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.output.artefact import read, write
from onexn_plugins.tvm_backend.processors import find_target
from onexn_plugins.tvm_backend.running.rpc import Board, parse_board, run_remotely
from tests.tvm_backend import rpc_processes, tiny_network
from tests.tvm_backend.rpc_processes import free_port, kill, started

pytest.importorskip("tvm")
pytest.importorskip("tornado")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    host = find_target("host")
    return read(write(tmp_path_factory.mktemp("rpc") / "tiny", tiny_network.compiled(host), host,
                      tiny_network.METADATA))


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).standard_normal(tiny_network.INPUT_SHAPE, np.float32)


@pytest.fixture
def server_port():
    port = free_port()
    with started(rpc_processes.server(port), port):
        yield port


def test_a_server_runs_and_times_it(saved, x, server_port):
    said = []
    remote = run_remotely(saved, Board("127.0.0.1", server_port), [x], repeat=25, report=said.append)
    np.testing.assert_allclose(remote.outputs[0], tiny_network.expected(x), atol=1e-5)
    assert len(remote.milliseconds) == 25
    assert min(remote.milliseconds) > 0
    assert not remote.emulated
    starts = ["connecting to", "uploading", "loading", "running", "timing it: 0 of 25", "timing it: 3 of 25"]
    assert [line.startswith(start) for line, start in zip(said, starts, strict=False)] == [True] * len(starts)


def test_nothing_listens(saved, x):
    with pytest.raises(OneXNError, match=r"cannot be reached: .*refused"):
        run_remotely(saved, Board("127.0.0.1", free_port()), [x])


def test_no_such_host(saved, x):
    with pytest.raises(OneXNError, match=r"no-such-host\.invalid:9090.*cannot be reached"):
        run_remotely(saved, Board("no-such-host.invalid", 9090), [x])


def test_a_key_that_no_board_has(saved, x):
    port, server_port = free_port(), free_port()
    with started(rpc_processes.tracker(port), port), \
            started(rpc_processes.server(server_port, port, "here"), server_port):
        rpc_processes.wait_for_key(port, "here")
        with pytest.raises(OneXNError, match=r"knows no board with key 'elsewhere'.*Its keys: here"):
            run_remotely(saved, Board("127.0.0.1", port, "elsewhere"), [x])
        remote = run_remotely(saved, Board("127.0.0.1", port, "here"), [x])
    np.testing.assert_allclose(remote.outputs[0], tiny_network.expected(x), atol=1e-5)


def test_a_tracker_taken_for_a_board(saved, x):
    port = free_port()
    with started(rpc_processes.tracker(port), port), pytest.raises(OneXNError, match=f"RPC at 127.0.0.1:{port}"):
        run_remotely(saved, Board("127.0.0.1", port), [x], patience=20)


def test_the_board_dies_in_the_middle(saved, x):
    port = free_port()
    with started(rpc_processes.server(port), port) as process:

        def die_while_timing(doing):
            if doing.startswith("timing it: 100000"):
                kill(process)

        with pytest.raises(OneXNError, match=r"(failed|broke).*while timing it"):
            run_remotely(saved, Board("127.0.0.1", port), [x], repeat=1_000_000, patience=60, report=die_while_timing)


@pytest.fixture
def silent_port():
    """Something that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []
        thread = threading.Thread(target=_hold, args=(listener, held), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()


def _hold(listener, held):
    try:
        while True:
            held.append(listener.accept()[0])
    except OSError:
        return


@pytest.mark.parametrize("key", [None, "rpi4"])
def test_silence_ends(saved, x, silent_port, key):
    with pytest.raises(OneXNError, match=r"has been silent for 15 s while connecting"):
        run_remotely(saved, Board("127.0.0.1", silent_port, key), [x], patience=15)


def test_another_service_listens(saved, x):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def answer():
            try:
                while True:
                    with listener.accept()[0] as connection:
                        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            except OSError:
                return

        threading.Thread(target=answer, daemon=True).start()
        for key in (None, "rpi4"):
            with pytest.raises(OneXNError, match=r"failed:.*while connecting"):
                run_remotely(saved, Board("127.0.0.1", listener.getsockname()[1], key), [x], patience=30)
        listener.shutdown(socket.SHUT_RDWR)


def test_addresses():
    assert parse_board("192.168.1.7:9190", "rpi4") == Board("192.168.1.7", 9190, "rpi4")
    assert parse_board("[::1]:9190") == Board("::1", 9190)


@pytest.mark.parametrize("address", ["", "host", "host:", ":9190", "host:0", "host:65536", "host:-1", "host:x"])
def test_no_addresses(address):
    with pytest.raises(OneXNError, match=r"is not HOST:PORT"):
        parse_board(address)
