"""The search on a small network: what it stores, what it survives, and that a tuned network computes the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from onexn_plugins import export_onnx
from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model, inspect_onnx, tune
from onexn_plugins.tvm_backend.kernels.problem import Choice, Conv, Tile
from onexn_plugins.tvm_backend.kernels.request import Request, Stage, Weights
from onexn_plugins.tvm_backend.processors import find_target, vector_unit
from onexn_plugins.tvm_backend.tuning.bench import Bench
from onexn_plugins.tvm_backend.tuning.candidates import candidates
from onexn_plugins.tvm_backend.tuning.database import Database, Entry, Machine
from onexn_plugins.tvm_backend.tuning.decision import Trial
from onexn_plugins.tvm_backend.tuning.search import _jobs
from onexn_plugins.tvm_backend.tuning.worker import Order, Setup, Times, Unusable
from tests.tvm_backend import rpc_processes
from tests.tvm_backend.networks import Mobile, prune
from tests.tvm_backend.rpc_processes import free_port, kill, started

pytest.importorskip("tvm")
pytest.importorskip("tornado")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    return export_onnx(prune(Mobile(), 4, 0.5), torch.randn(1, 8, 16, 16),
                       tmp_path_factory.mktemp("tune") / "mobile.onnx")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Three layers, two problems."""
    convs = (nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1))
    return export_onnx(nn.Sequential(*convs).eval(), torch.randn(1, 8, 8, 8),
                       tmp_path_factory.mktemp("tune") / "small.onnx")


def trials_of(path: Path) -> dict[str, tuple[Trial, ...]]:
    return {entry.problem: entry.trials for entry in Database.read(path).entries}


def test_every_problem_is_measured_once(model, tmp_path):
    said = []
    report = tune(model, database=tmp_path / "tuning.json", trials=1, progress=lambda *words: said.append(words))
    assert report.finished
    assert not report.emulated
    assert len({found.problem for found in report.problems}) == len(report.problems) == 5
    for found in report.problems:
        assert found.measured >= found.tried == 1
        assert found.failed == ()
        assert found.default_us > 0
        assert (found.gain > 0) == (found.best != found.default)
    assert said[0][:2] == (0, len(report.problems))
    again = tune(model, database=tmp_path / "tuning.json", trials=1)
    assert sum(found.measured for found in again.problems) == 0
    assert [found.best_us for found in again.problems] == [found.best_us for found in report.problems]
    layers = compile_model(model, tuning=tmp_path / "tuning.json").layers
    assert all("tuned:" in layer.reason for layer in layers if layer.tile)


def test_no_time_means_unfinished_and_no_harm(model, tmp_path):
    report = tune(model, database=tmp_path / "tuning.json", seconds=0)
    assert not report.finished
    assert not (tmp_path / "tuning.json").exists()


@pytest.fixture(scope="module")
def won(model, tmp_path_factory) -> Path:
    """A database in which the least likely candidate of every problem has won."""
    target = find_target("host")
    database = Database(tmp_path_factory.mktemp("won") / "tuning.json")
    for job in _jobs(model, target):
        best = candidates(job.request, job.default)[-1]
        proof = Trial(best, True, 80, 100.0, 80.0, 0.8, 0.9)
        database.put(Entry(Machine.of(target, 1), job.problem, job.default, (proof,)))
    database.save()
    return database.path


def test_a_tuned_network_computes_the_same(model, won):
    default, tuned = compile_model(model), compile_model(model, tuning=won)
    x = np.random.default_rng(0).standard_normal((1, 8, 16, 16), np.float32)
    np.testing.assert_allclose(tuned.run(x), default.run(x), atol=1e-5)
    changed = 0
    for before, after in zip(default.layers, tuned.layers, strict=True):
        assert before.name == after.name
        if before.tile:
            assert "tuned:" in after.reason
            assert "takes 80% of the time of" in after.reason
            changed += (before.sparse, before.tile) != (after.sparse, after.tile)
            assert after.kept == 1.0 or after.sparse
    assert changed == sum(layer.tile is not None for layer in default.layers)
    assert [layer["tile"] for layer in inspect_onnx(model, tuning=won)] == [layer.tile for layer in tuned.layers]


def test_a_database_that_cannot_be_used(model, won, tmp_path):
    with pytest.raises(OneXNError, match="is chosen by the tuning database"):
        compile_model(model, tuning=won, block_size=4)
    with pytest.raises(OneXNError, match="cannot be read"):
        compile_model(model, tuning=tmp_path / "none.json")
    with pytest.raises(OneXNError, match="must be a path"):
        compile_model(model, tuning=3)
    with pytest.raises(OneXNError, match="not for cortex-a72"):
        compile_model(model, target="cortex-a72", tuning=won)
    (tmp_path / "damaged.json").write_text("{")
    for use in (lambda path: compile_model(model, tuning=path), lambda path: tune(model, database=path)):
        with pytest.raises(OneXNError, match="it is not JSON"):
            use(tmp_path / "damaged.json")
    assert (tmp_path / "damaged.json").read_text() == "{"


@pytest.mark.parametrize(("options", "reason"), [
    ({"trials": 0}, "have to be positive"), ({"trials": True}, "have to be positive"),
    ({"timeout": 0}, "have to be positive"), ({"threads": 0}, "must be a positive integer"),
    ({"target": "cortex-a7"}, "has no TVM runtime"), ({"target": "cortex-a720"}, "is not a known processor"),
    ({"target": "apple-m1"}, "cannot be measured here"), ({"key": "rpi4"}, "there is no address"),
    ({"rpc": "board"}, "is not HOST:PORT"), ({"rpc": "127.0.0.1:1"}, "cannot be reached"),
])
def test_bad_words(model, tmp_path, options, reason):
    with pytest.raises(OneXNError, match=reason):
        tune(model, **{"database": tmp_path / "tuning.json", **options})
    assert list(tmp_path.iterdir()) == []


def test_a_killed_search_goes_on(small, tmp_path):
    path = tmp_path / "tuning.json"
    call = (f"from onexn_plugins.tvm_backend import tune\n"
            f"if __name__ == '__main__': tune({str(small)!r}, database={str(path)!r}, trials=3)")
    (tmp_path / "search.py").write_text(call)
    process = subprocess.Popen([sys.executable, tmp_path / "search.py"], start_new_session=True,
                               env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])})
    end = time.monotonic() + 120
    while sum(map(len, trials_of(path).values()) if path.exists() else ()) < 2:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = trials_of(path)
    report = tune(small, database=path, trials=3)
    after = trials_of(path)
    assert report.finished
    for problem, trials in before.items():
        assert after[problem][:len(trials)] == trials
    made = sum(map(len, after.values())) - sum(map(len, before.values()))
    assert sum(found.measured for found in report.problems) == made > 0


class Deadly(Request):
    """A request that some tiles of bring the process down, or to a standstill."""

    def with_choice(self, choice):
        if choice.tile.vectors == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        if choice.tile.vectors == 3:
            time.sleep(600)
        if choice.tile.vectors == 5:
            raise RuntimeError("no such tile")
        return super().with_choice(choice)


def test_a_bad_kernel_takes_nothing_else_down():
    random = np.random.default_rng(0)
    weights = Weights(random.standard_normal((8, 8, 1, 1), np.float32), np.zeros(8, np.float32))
    request = Deadly((Stage(Conv(1, 8, 8, 8, 8), weights),), vector_unit(find_target("host")))

    def order(vectors: int) -> Order:
        return Order(0, request, Choice(False, Tile(4, 4)), Choice(False, Tile(4, vectors)), 3)

    with Bench(Setup(find_target("host"), None, 1), patience=3.0) as bench:
        died, refused = bench.measure(order(2)), bench.measure(order(5))
        assert isinstance(died, Unusable)
        assert "the process died" in died.reason
        assert isinstance(refused, Unusable)
        assert "no such tile" in refused.reason
        good = bench.measure(order(1))
        assert isinstance(good, Times)
        assert len(good.default) == len(good.candidate) == 3
        assert min(good.default + good.candidate) > 0
        silent = bench.measure(order(3))
        assert isinstance(silent, Unusable)
        assert "has been silent for 3 s" in silent.reason


def test_over_rpc_until_the_board_dies(small, tmp_path):
    path, port = tmp_path / "tuning.json", free_port()

    def die_in_the_middle(done, total, note):
        if done == 1:
            kill(process)

    with started(rpc_processes.server(port), port) as process, pytest.raises(OneXNError, match=f"RPC at .*{port}"):
        tune(small, database=path, trials=1, rpc=f"127.0.0.1:{port}", timeout=60, progress=die_in_the_middle)
    before = trials_of(path)
    assert len(before) == 1
    with started(rpc_processes.server(port), port):
        report = tune(small, database=path, trials=1, rpc=f"127.0.0.1:{port}", timeout=60)
    assert report.finished
    assert not report.emulated
    assert [found.layers for found in report.problems] == [("0", "2"), ("1",)]
    assert [found.measured > 0 for found in report.problems] == [False, True]
    assert all(trial.failed is None and trial.us > 0 for trials in trials_of(path).values() for trial in trials)
