"""The accuracy grid: claims, contenders, one whole run, and the pages drawn from the committed runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from benchmarks.accuracy import __main__ as command
from benchmarks.accuracy import rows
from benchmarks.accuracy.claims import STALE_SECONDS, claimed
from benchmarks.accuracy.methods import METHODS, NNIFilters, TorchPruningFilters, plain
from benchmarks.accuracy.networks import mobilenet_v2_small
from benchmarks.accuracy.page import HERE, write
from benchmarks.accuracy.rows import Row, grid, start_of
from benchmarks.accuracy.runs import change, find, read_runs, spread
from benchmarks.accuracy.tables import sections
from onexn_plugins import measure
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import prunable_layers
from tests.training.folders import make_folder
from tests.training.small import images as small_images

RESULTS = HERE / "results"
EXAMPLE = torch.zeros(1, 3, 32, 32)
PHOTOS = small_images(64, size=32)


def test_a_claim_is_one_processes(tmp_path):
    path = tmp_path / "run.claim"
    with claimed(path) as mine:
        assert mine
        assert json.loads(path.read_text()) == {"host": socket.gethostname(), "pid": os.getpid()}
        with claimed(path) as second:
            assert not second
        assert path.exists(), "who did not get it leaves it alone"
    assert not path.exists()


def test_a_dead_processes_claim_is_taken_over(tmp_path):
    path = tmp_path / "run.claim"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for holder, silent, free in (({"host": socket.gethostname(), "pid": gone.pid}, 0, True),
                                 ({"host": "elsewhere", "pid": 1}, 0, False),
                                 ({"host": "elsewhere", "pid": 1}, STALE_SECONDS + 1, True)):
        path.write_text(json.dumps(holder))
        os.utime(path, (time.time() - silent,) * 2)
        with claimed(path) as mine:
            assert mine == free


def test_the_grid_names_every_run_once():
    listed = [row.name for row in grid()]
    assert len(set(listed)) == len(listed)
    assert listed[0] == start_of(Row()).name
    assert {row.method for row in grid()} == set(METHODS)
    assert [row.epochs for row in grid()][1:] == [rows.TUNE_EPOCHS] * (len(listed) - 1), "one budget for all"


@pytest.mark.parametrize("method", ["block_l1", "block_random", "block_distil", "block_uniform", "kernels_l1",
                                    "kernels_random", "weights_level"])
def test_masks_remove_what_the_ratio_says(method):
    model = METHODS[method](Row(method=method, pruning_ratio=0.75), PHOTOS).prepare(
        mobilenet_v2_small().eval(), EXAMPLE)
    weights = [layer.weight for layer in prunable_layers(plain(model)).values()]
    kept = sum(int((weight != 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    assert kept == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize("grouped", [False, True])
def test_filters_are_cut_to_the_work_that_blocks_leave(grouped):
    dense = mobilenet_v2_small().eval()
    target = METHODS["block_l1"](Row(method="block_l1", pruning_ratio=0.75), PHOTOS).prepare(
        mobilenet_v2_small(), EXAMPLE)
    blocks = measure(target, 4, EXAMPLE).macs
    cut = TorchPruningFilters(0.75, grouped).prepare(dense, EXAMPLE)
    left = measure(cut, 4, EXAMPLE).dense_macs
    assert blocks is not None
    assert left is not None
    assert 0.93 * blocks < left <= 1.001 * blocks


def test_channels_and_blocks_leave_equal_shares():
    """What repair makes of it is tests/training/test_methods.py's."""
    made = {method: METHODS[method](Row(method=method, pruning_ratio=0.75, rearrange="swap", seed=2), small_images(600))
            for method in ("block_repair", "block_channels")}
    for method, channels in (("block_repair", 0.0), ("block_channels", 0.5)):
        settings = made[method].settings()
        assert (settings["channels"], settings["pruning_ratio"], settings["count"]) == (channels, 0.75, 512)
        assert (settings["rearrange"], settings["seed"]) == ("swap", 2)


def test_nnis_filters_are_cut_too_and_refused_where_they_cannot_be(monkeypatch):
    monkeypatch.setattr("benchmarks.accuracy.methods.BISECTIONS", 2)
    cut = NNIFilters(0.3, "L1NormPruner").prepare(mobilenet_v2_small().eval(), EXAMPLE)
    dense = measure(mobilenet_v2_small(), 4, EXAMPLE).dense_macs
    left = measure(cut, 4, EXAMPLE).dense_macs
    assert left is not None
    assert dense is not None
    assert left < 0.8 * dense
    with pytest.raises(OneXNError, match="cannot cut filters"):
        NNIFilters(0.9, "L1NormPruner").prepare(mobilenet_v2_small().eval(), EXAMPLE)


@pytest.fixture(scope="module")
def small_zip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zip")
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        images = make_folder(folder / "images", training=100, held_out=20, pixels=32)
        for file in images.rglob("*.png"):
            archive.write(file, str(file.relative_to(images)).replace("val/", "test/"))
    return folder / "images.zip"


def test_a_run_from_start_to_page(tmp_path, monkeypatch, small_zip):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(rows, "START_EPOCHS", 1)
    monkeypatch.setattr("benchmarks.accuracy.networks.CLASSES", 3)
    wanted = [start_of(Row()), Row(method="block_l1", pruning_ratio=0.75), Row()]
    monkeypatch.setattr(command, "grid", lambda: iter(wanted))
    results = tmp_path / "results"
    call = ["accuracy", "run", "--data", str(small_zip), "--results", str(results), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", call)
    assert command.main() == 0
    done = {path.stem: json.loads(path.read_text()) for path in results.glob("*.json")}
    assert set(done) == {row.name for row in wanted}
    blocks = done[wanted[1].name]
    assert blocks["nonzero_weights"] / blocks["weights"] == pytest.approx(0.25, abs=0.01)
    assert blocks["latency"]["onexn"]["speedup"] > 0
    assert (blocks["held_out_images"], len(blocks["curve"])) == (60, 1)
    assert blocks["record"]["versions"]["torch"] == torch.__version__
    assert not list(results.glob("*.claim"))
    before = {path: path.stat().st_mtime_ns for path in results.glob("*.json")}
    assert command.main() == 0
    assert {path: path.stat().st_mtime_ns for path in results.glob("*.json")} == before, "done runs are not repeated"
    (tmp_path / "README.md").write_text((HERE / "README.md").read_text())
    write(results, tmp_path)
    readme = (tmp_path / "README.md").read_text()
    assert f"| 1×4 blocks, L1 | 75 % | – | 1 | {100 * blocks['top1']:.1f} %" in readme
    assert (tmp_path / "figures" / "accuracy_over_latency_our_backend_1.svg").is_file()


def test_differences_are_paired_by_seed():
    assert spread([]) is None
    assert spread([1.0]) == 1.0
    assert spread([1.0, 3.0]) == {"value": 2.0, "low": 1.0, "high": 3.0}
    assert change({0: {"top1": 0.5}, 1: {"top1": 0.9}}, {0: {"top1": 0.4}, 2: {"top1": 0.1}}) == pytest.approx(10)


def test_committed_runs_are_the_grids_and_the_page_is_theirs(tmp_path):
    runs = read_runs(RESULTS)
    names = {path.stem for path in RESULTS.glob("*.json")}
    assert names
    assert names == {Row(**run["row"]).name for seeds in runs.values() for run in seeds.values()}
    for seeds in runs.values():
        for run in seeds.values():
            assert run["data"] == "CIFAR-10, JPEG version"
            assert run["held_out_images"] == 10000
            assert "+changes" not in run["record"]["commit"], "published numbers come from a commit"
            assert len(run["curve"]) == run["row"]["epochs"]
            assert run["curve"][-1]["top1"] == run["top1"]
    assert find(runs, start_of(Row()))
    assert sections(runs)
    (tmp_path / "README.md").write_text((HERE / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    write(RESULTS, tmp_path)
    written = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert written == (HERE / "README.md").read_text(encoding="utf-8"), "run python -m benchmarks.accuracy tables"
