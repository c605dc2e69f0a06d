"""A sample of `python -m benchmarks.fuzz`: damaged files, artefacts and random networks, in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from benchmarks.fuzz.__main__ import main
from benchmarks.fuzz.judge import judge
from benchmarks.fuzz.mutations import mutant
from benchmarks.fuzz.networks import judge as networks
from benchmarks.fuzz.networks.generator import network
from benchmarks.fuzz.networks.maxima import GlobalMaxPool, MaxPool
from benchmarks.fuzz.networks.minimise import minimised
from benchmarks.fuzz.networks.runners import run_here
from benchmarks.fuzz.networks.spelling import WAYS
from benchmarks.fuzz.seeds import seed_models
from onexn_plugins.tvm_backend.checking.reference import onnxruntime_session
from onexn_plugins.tvm_backend.running.compiled import Compiled


def test_damaged_files_and_artefacts_are_refused_or_right(tmp_path: Path) -> None:
    out = tmp_path / "fuzz.json"
    assert main(["--files", "120", "--artefacts", "40", "--networks", "0", "--compile-every", "8", "--out",
                 str(out)]) == 0
    found = json.loads(out.read_text())
    assert (found["onnx"]["files"], found["artefacts"]["files"]) == (120, 40)
    assert all(found[kind]["outcomes"]["refused"] for kind in ("onnx", "artefacts"))


def test_what_a_mutation_starts_from_is_right(tmp_path: Path) -> None:
    for number, model in enumerate(seed_models()):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(model.SerializeToString())
        assert judge(path, run=True) == "right"


def test_the_same_number_gives_the_same_file() -> None:
    models = seed_models()
    assert [mutant(models, number) for number in range(50)] == [mutant(models, number) for number in range(50)]


@pytest.mark.timeout(1800)  # a busy machine is ten times as slow
def test_random_networks_are_right_or_refused(tmp_path: Path) -> None:
    out = tmp_path / "fuzz.json"
    assert main(["--files", "0", "--artefacts", "0", "--networks", "200", "--out", str(out)]) == 0
    found = json.loads(out.read_text())["networks"]
    assert found["files"] == 200
    assert found["outcomes"]["right"] >= 180


def test_a_network_that_nobody_else_computes_is_not_called_right(tmp_path: Path) -> None:
    def gather(beyond: int) -> onnx.ModelProto:
        graph = helper.make_graph(
            [helper.make_node("And", ["i", "i"], ["both"]), helper.make_node("Cast", ["both"], ["index"], to=7),
             helper.make_node("Add", ["index", "beyond"], ["place"]),
             helper.make_node("Gather", ["x", "place"], ["y"])],
            "gather", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4]),
                       helper.make_tensor_value_info("i", TensorProto.BOOL, [2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
            [numpy_helper.from_array(np.array(beyond, np.int64), "beyond")])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    assert networks.judge(gather(2), tmp_path / "model.onnx") == "right"
    assert networks.judge(gather(1000), tmp_path / "model.onnx").startswith("uncompared: InvalidArgument")


def test_a_skipped_zero_block_is_a_fault_only_where_strictness_shows_it_too(tmp_path: Path) -> None:
    """Of the logarithms of negative numbers a pruned layer leaves some out, as documented."""
    weight = np.zeros((8, 4, 1, 1), np.float32)
    weight[:4, :2] = 1
    graph = helper.make_graph([helper.make_node("Log", ["x"], ["l"]), helper.make_node("Conv", ["l", "w"], ["y"])],
                              "sparse", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 6, 6])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 6, 6])],
                              [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert networks.judge(model, tmp_path / "model.onnx") == "right"

    def wrong(compiled: Compiled, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [output + np.float32(1) for output in run_here(compiled, inputs)]

    assert networks.judge(model, tmp_path / "model.onnx", run=wrong).startswith("wrong: y on ordinary")


@pytest.mark.parametrize("way", WAYS)
def test_a_network_that_is_spelled_otherwise_computes_the_same(way: Callable[[onnx.ModelProto, Random], None]) -> None:
    changed = 0
    for number, model in enumerate(seed_models()):
        other = onnx.ModelProto()
        other.CopyFrom(model)
        way(other, Random(number))
        changed += other != model
        first, second = (onnxruntime_session(item.SerializeToString()) for item in (model, other))
        x = {item.name: np.random.default_rng(0).standard_normal(item.shape).astype(np.float32)
             for item in first.get_inputs()}
        given = dict(zip([item.name for item in second.get_inputs()], x.values(), strict=False))
        given |= {item.name: np.zeros(item.shape, np.float32) for item in second.get_inputs() if item.name not in given}
        for before, after in zip(first.run(None, x), second.run(None, given), strict=False):
            np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-5)
    assert changed


def test_random_networks_are_valid_and_the_same_again() -> None:
    for number in range(30):
        model = network(number)
        onnx.checker.check_model(model, full_check=True)
        assert model == network(number)


def test_what_fails_is_made_smaller() -> None:
    number = next(number for number in range(1000) if len(network(number).graph.node) >= 5)
    model = network(number)
    middle = model.graph.node[2].op_type
    small = minimised(model, lambda candidate: any(node.op_type == middle for node in candidate.graph.node))
    assert [node.op_type for node in small.graph.node] == [middle]
    onnx.checker.check_model(small)


def test_a_shape_that_onnx_cannot_tell_ends_no_minimising() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Unknown", ["r"], ["u"], domain="elsewhere"),
             helper.make_node("Neg", ["u"], ["y"])]
    graph = helper.make_graph(nodes, "unknown", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("elsewhere", 1)])
    small = minimised(model, lambda candidate: any(node.op_type == "Unknown" for node in candidate.graph.node))
    assert [node.op_type for node in small.graph.node] == ["Unknown", "Neg"]


def test_the_reference_of_maxima_keeps_nan_and_its_last_place() -> None:
    nodes = [helper.make_node("MaxPool", ["x"], ["y", "places"], kernel_shape=[2, 2], strides=[2, 2]),
             helper.make_node("GlobalMaxPool", ["row"], ["z"])]
    graph = helper.make_graph(
        nodes, "maxima", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4]),
                          helper.make_tensor_value_info("row", TensorProto.FLOAT, [1, 2, 3])],
        [helper.make_empty_tensor_value_info(name) for name in ("y", "places", "z")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    x[0, 0, 0, :2] = np.nan
    row = np.array([[[1, np.nan, 2], [-np.inf] * 3]], np.float32)
    y, places, z = ReferenceEvaluator(model, new_ops=[MaxPool, GlobalMaxPool]).run(None, {"x": x, "row": row})
    np.testing.assert_array_equal(y, [[[[np.nan, 7], [13, 15]]]])
    np.testing.assert_array_equal(places, [[[[1, 7], [13, 15]]]])
    np.testing.assert_array_equal(z, [[[np.nan], [-np.inf]]])
