"""`onexn deploy` on an emulated board that registered with a tracker, as a Raspberry Pi would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from onexn_plugins import cli, export_onnx

pytest.importorskip("tvm")
pytest.importorskip("tornado")

from tests.tvm_backend import rpc_processes
from tests.tvm_backend.rpc_processes import free_port, started

INTEGRATION = Path(__file__).resolve().parents[2] / "integrations" / "arm"
RPC_SERVER = Path(__file__).with_name("rpc_server.py")
KEY = "rpi4"


@pytest.fixture(scope="module")
def tracker_port(arm64) -> Iterator[int]:
    """A tracker's port, with the emulated board registered as KEY."""
    port, board_port = free_port(), free_port()
    command = arm64.command([str(RPC_SERVER), *rpc_processes.server_options(board_port, port, KEY)])
    with started(rpc_processes.tracker(port), port), started(command, board_port, arm64.environment):
        rpc_processes.wait_for_key(port, KEY)
        yield port


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 1), nn.ReLU6(),
                            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)).eval()
    return str(export_onnx(network, torch.randn(1, 3, 16, 16), tmp_path_factory.mktemp("model") / "model.onnx"))


def test_the_board_computes_what_onnxruntime_does(model, tracker_port, capsys):
    command = ["deploy", model, "--rpc", f"127.0.0.1:{tracker_port}", "--key", KEY, "--target", "cortex-a72",
               "--repeat", "5", "--json"]
    assert cli.main(command) == 0
    printed = capsys.readouterr()
    values = json.loads(printed.out)
    assert values["difference"] < 1e-5
    assert values["repeat"] == 5
    assert 0 < values["p10_ms"] <= values["median_ms"] <= values["p90_ms"]
    assert values["emulated"] is True
    assert values["core"] is None
    assert printed.err == ""


def test_people_are_told_that_it_is_emulated(model, tracker_port, capsys):
    assert cli.main(["deploy", model, "--rpc", f"127.0.0.1:{tracker_port}", "--key", KEY, "--target", "cortex-a53",
                     "--repeat", "2"]) == 0
    printed = capsys.readouterr()
    assert "EMULATED" in printed.out
    assert "uploading" in printed.err


@pytest.mark.parametrize(("change", "reason"), [
    ({"--rpc": "127.0.0.1"}, "is not HOST:PORT"),
    ({"--target": "cortex-a7"}, "has no TVM runtime"),
    ({"--target": "cortex-a720"}, "is not a known processor"),
    ({"--repeat": "0"}, "have to be positive"),
    ({"--timeout": "-1"}, "have to be positive"),
    ({"--rpc": "127.0.0.1:1"}, "cannot be reached"),
])
def test_bad_words_end_with_2(model, capsys, change, reason):
    options = {"--rpc": "127.0.0.1:9190", "--target": "cortex-a72", **change}
    assert cli.main(["deploy", model, *(word for pair in options.items() for word in pair)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert reason in printed.err


def test_a_key_nobody_has(model, tracker_port, capsys):
    assert cli.main(["deploy", model, "--rpc", f"127.0.0.1:{tracker_port}", "--key", "rpi5", "--target",
                     "cortex-a72"]) == 2
    assert f"Its keys: {KEY}" in capsys.readouterr().err


def test_what_an_emulated_board_measures_chooses_nothing(model, tracker_port, tmp_path, capsys):
    database = str(tmp_path / "tuning.json")
    tune = ["tune", model, "--rpc", f"127.0.0.1:{tracker_port}", "--key", KEY, "--target", "cortex-a72", "--trials",
            "1", "--database", database]
    assert cli.main([*tune, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["emulated"] is values["finished"] is True
    assert all(found["default_us"] > 0 and not found["failed"] for found in values["problems"])
    assert cli.main(tune) == 0
    assert "EMULATED" in capsys.readouterr().out
    assert cli.main(["compile", model, "--target", "cortex-a72", "--tuning", database, "--output",
                     str(tmp_path / "network")]) == 2
    assert "emulated" in capsys.readouterr().err


def script(name: str, *words: object) -> subprocess.CompletedProcess[str]:
    """One of the integration's scripts."""
    return subprocess.run([sys.executable, str(INTEGRATION / name), *map(str, words)], text=True, capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(INTEGRATION.parents[1])}, timeout=300, check=False)


def test_the_latency_table(model, tracker_port, tmp_path):
    done = script("latency_table.py", model, model, "--rpc", f"127.0.0.1:{tracker_port}", "--key", KEY, "--target",
                  "cortex-a72", "--repeat", "4", "--turns", "2", "--json", tmp_path / "table.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["runs"] for row in rows] == [4, 4]
    assert max(row["difference"] for row in rows) < 1e-5
    assert done.stdout.count("| model |") == 2
    assert "EMULATED" in done.stdout


def test_a_cortex_a7_by_hand(model, arm, tmp_path):
    """The README's commands, with the emulator for the board."""
    assert cli.main(["compile", model, "--target", "cortex-a7", "--output", str(tmp_path / "network")]) == 0
    sent, came_back = tmp_path / "input.bin", tmp_path / "output.bin"
    assert script("raw_io.py", "make", model, sent).returncode == 0
    subprocess.run([*arm, str(tmp_path / "network" / "network"), str(sent), str(came_back), "--repeat", "2"],
                   check=True, capture_output=True)
    checked = script("raw_io.py", "check", model, sent, came_back)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    came_back.write_bytes(bytes(came_back.stat().st_size))
    assert script("raw_io.py", "check", model, sent, came_back).returncode == 1
