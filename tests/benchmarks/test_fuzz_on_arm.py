"""Random networks, compiled for a 64-bit ARM core and run as it, emulated."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("tvm")
from benchmarks.common.emulation.cache import Unavailable
from benchmarks.fuzz.networks.__main__ import main
from benchmarks.fuzz.networks.generator import network
from benchmarks.fuzz.networks.judge import judge
from benchmarks.fuzz.networks.runners import EmulatedCore
from onexn_plugins.tvm_backend.running.compiled import Compiled
from tests.emulation.conftest import leave_out

NUMBER = 3


@pytest.fixture(scope="module")
def emulated() -> Iterator[EmulatedCore]:
    try:
        core = EmulatedCore("cortex-a72")
    except Unavailable as reason:
        leave_out(reason)
    else:
        yield core
        core.close()


def test_random_networks_are_right_on_the_emulated_core(emulated, tmp_path):
    out = tmp_path / "summary.json"
    assert main(["--core", "cortex-a72", "--count", "5", "--log", str(tmp_path / "log.jsonl"), "--out", str(out)]) == 0
    assert json.loads(out.read_text())["outcomes"]["right"] >= 4


def test_a_network_that_does_not_run_is_refused_and_the_board_goes_on(emulated, tmp_path):
    """As on this machine: it is no fault of the board, and the next network runs on the same one."""
    def lacking(compiled: Compiled, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return emulated(compiled, inputs[:-1])

    path = tmp_path / "model.onnx"
    assert judge(network(NUMBER), path, "cortex-a72", emulated) == "right"
    board = emulated._board
    assert judge(network(NUMBER), path, "cortex-a72", lacking).startswith("refused: network: does not run: ")
    assert judge(network(NUMBER), path, "cortex-a72", emulated) == "right"
    assert emulated._board is board


def test_what_the_emulated_core_computes_is_what_is_judged(emulated, tmp_path):
    def broken(compiled: Compiled, inputs: list[np.ndarray]) -> list[np.ndarray]:
        outputs = emulated(compiled, inputs)
        return [np.zeros_like(output) if output.dtype.kind == "f" else output for output in outputs]

    path = tmp_path / "model.onnx"
    assert judge(network(NUMBER), path, "cortex-a72", emulated) == "right"
    assert judge(network(NUMBER), path, "cortex-a72", broken).startswith("wrong: ")
