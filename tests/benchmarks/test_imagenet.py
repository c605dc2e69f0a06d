"""The paper's README commands, run as written on a tiny ImageFolder."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import onnx
import pytest
import torch

from benchmarks.imagenet import MEANINGLESS, _parser, main, method, notes, recipe
from onexn_plugins import fold, measure
from onexn_plugins.export import read_pattern
from onexn_plugins.training import Blocks
from onexn_plugins.zoo import load_model
from tests.training.folders import make_folder

# As the README prints them, with what it leaves to the reader filled in.
TRAIN = """--gpus 0 --arch {arch} --job_dir {job} --data_path {data} --pretrained_model {weights} --pr_target 0.5
--N {N} --conv_type BlockL1Conv --train_batch_size 8 --eval_batch_size 8 --rearrange"""
EVALUATE = "--gpus 0 --arch {arch} --data_path {data} --conv_type DenseConv --evaluate {weights} --eval_batch_size 8"
# So that it takes seconds; all else is the paper's.
SMALL = " --num_epochs 1 --pixels 32 --workers 0"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data") / "images", training=4, held_out=2)


def pretrained(arch: str, path: Path) -> Path:
    torch.save(load_model(arch, classes=3).state_dict(), path)
    return path


def call(text: str) -> int:
    return main(shlex.split(text))


@pytest.mark.parametrize(("arch", "N"), [("mobilenet_v3_small", 32)])
def test_the_papers_commands(capsys, tmp_path, data, arch, N):
    weights = pretrained(arch, tmp_path / "pretrained.pt")
    job = tmp_path / "experiment"
    assert call(TRAIN.format(arch=arch, job=job, data=data, weights=weights, N=N) + SMALL + " --export_onnx") == 0
    out = capsys.readouterr().out
    assert "half the epochs are warm-up" in out
    assert torch.cuda.is_available() or "--gpus 0: there is no GPU here" in out
    pruned = load_model(arch, job / "model.safetensors")
    assert measure(pruned, N).sparsity.blocks == pytest.approx(0.5, abs=0.03)
    recorded = read_pattern(onnx.load(job / "model.onnx"))
    assert recorded
    assert {entry["block_size"] for entry in recorded.values()} <= set(range(2, N + 1))
    trained = json.loads((job / "result.json").read_text())["accuracy"]["top1"]
    assert call(EVALUATE.format(arch=arch, data=data, weights=job / "model.safetensors") + SMALL.split(" 1", 1)[1]) == 0
    assert f"top-1 {trained:.3%}" in capsys.readouterr().out


def test_a_pruned_network_is_exported_without_training(capsys, tmp_path, data):
    model = load_model("tests.training.small:network")
    torch.save(fold(Blocks(pruning_ratio=0.75).prepare(model, torch.zeros(1, 3, 32, 32))).state_dict(), tmp_path / "p")
    command = EVALUATE.format(arch="tests.training.small:network", data=data, weights=tmp_path / "p")
    assert call(f"{command} {SMALL} --N 4 --export_onnx --job_dir {tmp_path / 'job'} --resume --rearrange") == 0
    out = capsys.readouterr().out
    assert "--resume has no meaning with --evaluate" in out
    assert "--rearrange has no meaning with --evaluate" in out
    recorded = read_pattern(onnx.load(tmp_path / "job" / "model.onnx"))
    assert [entry["kept"] / entry["blocks"] for entry in recorded.values()] == pytest.approx([0.25, 0.25], abs=0.02)


def test_pruning_flags_are_said_to_mean_nothing_where_nothing_is_pruned():
    parse = _parser().parse_args
    given = ["--data_path", "x", "--pr_target", "0.7", "--N", "4", "--rearrange", "--full"]
    said = notes(parse([*given, "--conv_type", "DenseConv"]))
    for flag in ("pr_target", "N", "rearrange", "full"):
        assert f"--{flag} has no meaning with DenseConv, which prunes nothing" in said
    assert not any("no meaning" in note for note in notes(parse(given)))
    assert any("BlockRandomConv" in note for note in notes(parse([*given, "--conv_type", "BlockRandomConv"])))


def test_a_run_goes_on_with_resume_alone(capsys, tmp_path, data):
    weights = pretrained("mobilenet_v3_small", tmp_path / "pretrained.pt")
    command = TRAIN.format(arch="mobilenet_v3_small", job=tmp_path / "e", data=data, weights=weights, N=4) + SMALL
    command = command.replace("--rearrange", "")  # which takes a while
    assert call(command + " --resume") == 2
    assert "holds no run to resume" in capsys.readouterr().err
    assert call(command) == 0
    assert call(command) == 2
    assert "Add --resume" in capsys.readouterr().err
    assert call(command + " --resume") == 0


def test_defaults_are_the_papers():
    arguments = _parser().parse_args(["--data_path", "x"])
    assert (arguments.arch, arguments.pr_target, arguments.N, arguments.conv_type) == ("mobilenet_v2", 0.5, 16,
                                                                                       "BlockL1Conv")
    made = recipe(arguments)
    assert (made.epochs, made.batch_size, made.eval_batch_size) == (180, 256, 256)
    assert (made.lr, made.momentum, made.weight_decay, made.schedule) == (0.01, 0.9, 4e-5, "cos")
    assert (made.warmup_epochs, made.decay_epochs, made.decay_factor, made.label_smoothing) == (5, 30, 0.1, 0.0)


def test_flags_reach_the_method():
    parse = _parser().parse_args
    blocks = method(parse(["--data_path", "x", "--conv_type", "BlockRandomConv", "--N", "8", "--full", "--rearrange"]))
    assert isinstance(blocks, Blocks)
    assert (blocks.score, blocks.block_size, blocks.full, blocks.rearrange) == ("random", 8, True, "none")
    assert not isinstance(method(parse(["--data_path", "x", "--conv_type", "DenseConv"])), Blocks)
    assert method(parse(["--data_path", "x", "--rearrange", "sort"])).rearrange == "sort"  # type: ignore[attr-defined]
    assert recipe(parse(["--data_path", "x", "--lr_policy", "exp"])).decay_factor == 0.96


@pytest.mark.parametrize("name", MEANINGLESS)
def test_a_flag_without_meaning_is_said(name):
    flag = "--first-layer-type" if name == "first_layer_type" else f"--{name}"
    value = [] if name in ("test_only", "debug") else ["50", "100"] if name == "lr_decay_step" else ["x"]
    parse = _parser().parse_args
    said = notes(parse(["--data_path", "x", flag, *value]))
    assert any(note.startswith(f"{flag} has no meaning here") for note in said)
    assert not any("has no meaning" in note for note in notes(parse(["--data_path", "x"])))


@pytest.mark.parametrize(("extra", "message"), [
    ("--pretrained_model nowhere.pt", "nowhere.pt"), ("--pr_target 1.5", "pruning_ratio"), ("--N 33", "1 to 32"),
    ("--arch no_such_net", "no_such_net"), ("--data_path nowhere", "nowhere"), ("--pixels 0", "pixels"),
    ("--workers -1", "workers"), ("--evaluate W --eval_batch_size 0", "batch_size"),
])
def test_bad_input_is_refused(capsys, tmp_path, data, extra, message):
    if "W" in extra:
        extra = extra.replace("W", str(pretrained("mobilenet_v3_small", tmp_path / "weights.pt")))
    assert call(f"--data_path {data} --arch mobilenet_v3_small --job_dir {tmp_path / 'job'} {SMALL} "
                f"--train_batch_size 4 {extra}") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arch", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small",
                                  "resnet50"])
def test_every_block_size_on_the_papers_networks(arch):
    for block_size in ("2", "8", "32"):
        model = load_model(arch, classes=3)
        method(_parser().parse_args(["--data_path", "x", "--N", block_size])).prepare(model, torch.zeros(1, 3, 32, 32))
        assert measure(fold(model), int(block_size)).sparsity.blocks == pytest.approx(0.5, abs=0.01)
