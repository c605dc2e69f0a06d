"""`onexn train` as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from onexn_plugins import measure
from onexn_plugins.cli import main
from onexn_plugins.training import AlternatingBlocks, Distilled, GradualBlocks, train
from onexn_plugins.zoo import load_model
from tests.training.folders import make_folder
from tests.training.small import network

NET = "tests.training.small:network"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    return str(make_folder(tmp_path_factory.mktemp("data") / "images", training=8, held_out=4, pixels=16))


def values(capsys, *argv: str):
    code = main([*argv, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert captured.err == ""
    return json.loads(captured.out)


def test_train_prunes_learns_and_saves(capsys, images, tmp_path):
    command = ["train", NET, "--data", images, "--output", str(tmp_path / "run"), "--pixels", "16", "--epochs", "6",
               "--batch-size", "8", "--lr", "0.1", "--pruning-ratio", "0.5", "--rearrange", "--workers", "0"]
    report = values(capsys, *command)
    assert report["accuracy"]["top1"] > 0.8
    assert report["sparsity"]["blocks"] == pytest.approx(0.5, abs=0.02)
    saved = load_model(NET, tmp_path / "run" / "model.safetensors")
    assert measure(saved, 4).sparsity.blocks == pytest.approx(0.5, abs=0.02)
    again = values(capsys, *command)
    assert again == report, "a finished run is read, not repeated"
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "top-1" in shown.out
    assert "removed from prunable layers: 5" in shown.out


@pytest.mark.parametrize(("flags", "made", "expected"), [
    (["--alternate", "0.7", "--dense-phases", "3"], AlternatingBlocks, {"until": 0.7, "dense_phases": 3}),
    (["--gradual", "0.5", "--straight-through", "--importance", "angular", "--scope", "row"], GradualBlocks,
     {"score": "angular", "scope": "row", "straight_through": True}),
    (["--repair", "16", "--channels", "auto", "--distil", "0.5"], Distilled,
     {"count": 16, "channels": "auto", "distillation": 0.5}),
])
def test_flags_reach_the_method(capsys, images, tmp_path, monkeypatch, flags, made, expected):
    seen = []
    monkeypatch.setattr("onexn_plugins.training.train", lambda *given, method, **options: (
        seen.append(method), train(*given, method=method, **options))[1])
    report = values(capsys, "train", NET, "--data", images, "--output", str(tmp_path / "run"), "--pixels", "16",
                    "--epochs", "1", "--batch-size", "8", "--pruning-ratio", "0.5", "--workers", "0", *flags)
    assert type(seen[0]) is made
    settings = seen[0].settings()
    assert settings.items() >= expected.items()
    left = sum(int(tensor.count_nonzero()) for tensor in load_file(report["weights"]).values())
    assert left < 0.8 * sum(parameter.numel() for parameter in network().parameters())  # by blocks or by channels


def test_weights_and_their_head(capsys, images, tmp_path):
    wanted = load_model("mobilenet_v3_small", classes=5)
    torch.save(wanted.state_dict(), tmp_path / "five.pt")
    command = ["train", "mobilenet_v3_small", "--data", images, "--output", str(tmp_path / "run"), "--pixels", "32",
               "--epochs", "1", "--batch-size", "8", "--workers", "0", "--weights", str(tmp_path / "five.pt")]
    assert main(command) == 2
    assert "the network has 5 outputs and the images 3 classes" in capsys.readouterr().err
    report = values(capsys, *command, "--new-head")
    assert load_model("mobilenet_v3_small", report["weights"]).classifier[-1].out_features == 3


@pytest.mark.parametrize(("arguments", "message"), [
    (["--epochs", "0"], "epochs"), (["--pruning-ratio", "1.5"], "pruning_ratio"),
    (["--pruning-ratio", "0.5", "--block-size", "64"], "from 1 to 32"),
    (["--weights", "nowhere.pt"], "nowhere.pt"), (["--data", "nowhere"], "nowhere"),
    (["--rearrange"], "--rearrange: says how to prune"), (["--scope", "row"], "--scope"), (["--full"], "--full"),
    (["--importance", "random"], "needs --pruning-ratio"), (["--gradual", "0.5"], "needs --pruning-ratio"),
    (["--pruning-ratio", "0.5", "--straight-through"], "--gradual"),
    (["--pruning-ratio", "0.5", "--gradual", "2"], "until"), (["--distil", "3"], "distillation"),
    (["--pruning-ratio", "0.5", "--dense-phases", "2"], "--dense-phases: needs --alternate"),
    (["--pruning-ratio", "0.5", "--channels", "0.2"], "--channels: needs --repair"),
    (["--pruning-ratio", "0.5", "--gradual", "0.5", "--repair", "8"], "--repair: and --gradual are two ways"),
    (["--pruning-ratio", "0.5", "--repair", "8", "--scope", "row"], "--scope: says nothing to --repair"),
    (["--pruning-ratio", "0.5", "--repair", "8", "--channels", "0.5"], "leaves nothing to blocks"),
    (["--pruning-ratio", "0.5", "--repair", "99"], "all 24 training images, got 99"),
    (["--batch-size", "4096"], "4096 is more than the 24 images"),
])
def test_bad_input_ends_with_2_and_a_reason(capsys, images, tmp_path, arguments, message):
    command = ["train", NET, "--data", images, "--output", str(tmp_path), "--pixels", "16", "--batch-size", "8",
               "--workers", "0"]
    assert main([*command, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_two_processes_print_one_answer(images, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
               "--rdzv-endpoint", "localhost:0", "-m", "onexn_plugins.cli", "train", NET, "--data", images, "--output",
               str(tmp_path / "run"), "--pixels", "16", "--epochs", "1", "--batch-size", "8", "--workers", "0",
               "--device", "cpu", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"]["images"] == 12
