"""The processes of engines, their environments, and a whole part at a tiny size, with the engines that are here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from benchmarks.latency import engines, networks, pages, parts, readme
from benchmarks.latency.environments import NOT_SET_UP, REASON, Environments
from benchmarks.latency.measure import measure
from benchmarks.latency.parts import Contender, Part, Variant
from benchmarks.latency.processes import Worker, prepare
from benchmarks.latency.store import Store
from onexn_plugins.errors import OneXNError
from onexn_plugins.progress import Progress
from onexn_plugins.report import load, save
from onexn_plugins.timing import CALLS_PER_TURN, interleave_turns

HERE = Path(sys.executable)


@pytest.fixture
def doubling(tmp_path):
    """A folder with a network that doubles its input, an input, and what it should give."""
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    node = helper.make_node("Add", ["x", "x"], ["y"])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, image.shape) for name in "xy")
    graph = helper.make_graph([node], "doubling", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
              str(tmp_path / "network.onnx"))
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "reference.npy", 2 * image)
    return tmp_path


def start(folder):
    return Worker("onnxruntime", HERE, folder / "network.onnx", folder / "image.npy", folder / "reference.npy")


def test_workers_take_turns_and_say_how_busy_they_are(doubling):
    path = prepare("onnxruntime", HERE, doubling / "network.onnx", doubling, seconds=60)
    assert path == doubling / "network.onnx"
    first, second = start(doubling), start(doubling)
    timings = interleave_turns({"first": first.turn, "second": second.turn}, rounds=2)
    assert {name: samples.shape for name, samples in timings.samples.items()} == {
        "first": (2, CALLS_PER_TURN - 1), "second": (2, CALLS_PER_TURN - 1)}
    assert first.difference == 0.0
    assert len(first.busy) == len(first.idle) == 1 + 3  # its start and three turns
    first.close()
    second.close()


def test_another_output_is_refused(doubling):
    np.save(doubling / "reference.npy", np.ones(12, np.float32))
    with pytest.raises(OneXNError, match=r"ONNX Runtime.*its output differs by"):
        start(doubling)


def test_a_broken_network_is_refused(doubling):
    (doubling / "network.onnx").write_bytes(b"no network")
    with pytest.raises(OneXNError, match=r"ONNX Runtime.*InvalidProtobuf"):
        start(doubling)


def test_a_worker_that_dies_is_named(doubling):
    worker = start(doubling)
    worker._process.kill()
    worker._process.wait()
    with pytest.raises(OneXNError, match=r"ONNX Runtime.*its process"):
        worker.turn()
    worker.close()


def test_a_failing_converter_says_why(doubling):
    (doubling / "ncnn").mkdir()
    with pytest.raises(OneXNError, match=r"ncnn.*ModuleNotFoundError: pnnx"):
        prepare("ncnn", HERE, doubling / "network.onnx", doubling / "ncnn", seconds=60)


def test_a_spinning_or_threaded_engine_is_noticed(doubling):
    worker = start(doubling)
    assert [worker.disturbance() for worker.busy, worker.idle in (([0.0, 1.0], [0.0, 0.0]), ([0.0, 1.9], [0.0, 0.0]),
                                                                 ([0.0, 1.0], [0.0, 0.4]))] == [
        None, "keeps 1.9 cores busy", "keeps 40% of a core busy while others are timed"]
    worker.close()


def test_absent_engines_have_a_reason(tmp_path):
    (tmp_path / "environments" / "ncnn").mkdir(parents=True)
    (tmp_path / "environments" / "ncnn" / REASON).write_text("ERROR: no matching distribution")
    versions, absent = Environments(tmp_path).installed()
    assert versions.keys() == {"onnxruntime"}
    assert absent["ncnn"] == "ERROR: no matching distribution"
    assert absent["mnn"] == absent["mnn_sparse"] == NOT_SET_UP
    assert versions.keys() | absent.keys() == engines.DENSE.keys() | engines.SPARSE.keys()


def test_what_is_kept_is_whole(tmp_path, monkeypatch):
    def half(variant, folder):
        (folder / "network.onnx").write_bytes(b"half")
        raise OneXNError("disk", "is full", "Make room")

    monkeypatch.setattr(networks, "export", half)
    with pytest.raises(OneXNError, match="is full"):
        Store(Environments(tmp_path)).exported(Variant("mobilenet_v2"))
    assert list((tmp_path / "networks").iterdir()) == []


def tiny():
    return nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.ReLU(), nn.Conv2d(16, 32, 1), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def test_a_part_from_the_network_to_the_readme(tmp_path, monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "tiny", "tests.benchmarks.latency.test_latency:tiny")
    monkeypatch.setitem(parts.GOALS, "tiny", {0.75: 1.0})
    part = Part("tiny", "Tiny", "tiny", (Variant("tiny"), Variant("tiny", 0.75)), peers=True, rounds=2)
    environments = Environments(tmp_path)
    store = Store(environments)
    measured = measure(part, environments, store, Progress(), part.rounds)
    dense, pruned = measured.ours
    assert (dense["name"], pruned["name"]) == ("dense", "1×4, 75 %")
    assert (dense["goal"], pruned["goal"]) == (None, 1.0)
    assert dense["best"] == pruned["best"] == "ONNX Runtime"
    assert pruned["sparse_layers"] == "1 of 3"
    assert pruned["speedup"].keys() == {"value", "low", "high"}
    assert pruned["against_mnn_sparse"] is None
    assert measured.versions.keys() == {"onnxruntime"}
    assert measured.absent["DeepSparse"] == NOT_SET_UP
    assert [row["name"] for row in measured.engines] == ["Peak of the core, dense", "ONNX Runtime, dense"]
    assert store.exported(part.variants[0]).macs == 56 * 56 * (16 * 27 + 16 * 32) + 320
    assert store.exported(part.variants[1]).macs == 56 * 56 * (16 * 27 + 4 * 32) + 320

    record = {"machine": {"cores": 2, "processor": "any", "vector_units": []}, "command": "this", "commit": "0",
              "versions": {"apache-tvm": "0", "torch": torch.__version__}, "seconds": 1.0}
    page = pages.build(part, measured, part.rounds, record)
    save(page, tmp_path / "tiny.json")
    text = readme.filled(f"before\n{readme.START}{readme.END}after\n", {"tiny": load(tmp_path / "tiny.json")}, {})
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| 1×4, 75 % |" in text
    assert f"- Not measured: DeepSparse: {NOT_SET_UP}" in text


def test_what_an_engine_cannot_take_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "tiny", "tests.benchmarks.latency.test_latency:tiny")
    store, contender = Store(Environments(tmp_path)), Contender("ncnn", Variant("tiny"))
    monkeypatch.setattr(Environments, "python", lambda self, name: HERE)
    ready, failed = store.prepare_all([contender, Contender("mnn", Variant("tiny"))], {"ncnn": "0"}, Progress())
    assert (ready, failed) == ({}, {contender: "ModuleNotFoundError: pnnx"})
