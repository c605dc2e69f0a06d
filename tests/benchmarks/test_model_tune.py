"""model_tune.py's flags, through tuning, compiling and timing on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.model_tune import main
from onexn_plugins import export_onnx
from onexn_plugins.training import Blocks

FLAGS = ["--bsr", "4", "--bsc", "1", "--sparsity", "0.5"]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory) -> str:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1)).eval()
    example = torch.randn(1, 3, 10, 10)
    Blocks(pruning_ratio=0.75).prepare(model, example)
    return export_onnx(model, example, tmp_path_factory.mktemp("onnx") / "pruned.onnx")


def test_the_papers_command_tunes_compiles_and_times(capsys, pruned):
    assert main(["--onnx_path", pruned, *FLAGS, "--trials", "2"]) == 0
    out = capsys.readouterr().out
    assert "2 of 2 pruned layers lack at least so many of their blocks" in out
    assert "onnxruntime" in out
    assert json.loads(Path(pruned).with_suffix(".json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("flags", "message"), [
    (["--bsr", "4", "--bsc", "2", "--sparsity", "0.5"], "not 1×N blocks"),
    (["--bsr", "2", "--bsc", "1", "--sparsity", "0.5"], "Give --bsr 4"),
    (["--bsr", "4", "--bsc", "1", "--sparsity", "50"], "from 0 to 1"),
    ([*FLAGS, "--target", "cortex-a72"], "--rpc"),
])
def test_flags_that_do_not_fit_the_file_are_refused(capsys, pruned, flags, message):
    assert main(["--onnx_path", pruned, *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_is_named(capsys):
    assert main(["--onnx_path", "nowhere.onnx", *FLAGS]) == 2
    assert "nowhere.onnx" in capsys.readouterr().err
