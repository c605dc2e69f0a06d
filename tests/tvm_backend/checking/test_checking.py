"""What would be computed wrong is refused while compiling, by its name: single operators, and whole networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile as compiling
from onexn_plugins.tvm_backend import compile_model, load
from onexn_plugins.tvm_backend.checking import cache, inputs, operators
from onexn_plugins.tvm_backend.checking import network as network_check
from onexn_plugins.tvm_backend.checking.network import share_apart
from onexn_plugins.tvm_backend.checking.reference import difference, difference_each, onnxruntime_session
from onexn_plugins.tvm_backend.lowering.operators import recurrence
from onexn_plugins.tvm_backend.lowering.own import EMITTERS
from onexn_plugins.tvm_backend.planning.fusion import KernelCall
from onexn_plugins.tvm_backend.planning.network import Network, plan_file
from onexn_plugins.tvm_backend.processors import find_target
from onexn_plugins.tvm_backend.reading.graph import Graph, Node, TensorSpec
from tests.tvm_backend.onnx_files import conv_model, make_model

node = helper.make_node
random = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def written(path: Path, nodes: list[NodeProto], **constants: np.ndarray) -> Path:
    path.write_bytes(make_model(nodes, {"x": (1, 2, 6, 6)}, ["y"], constants).SerializeToString())
    return path


def test_what_tvm_computes_wrong_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(EMITTERS, "RoiAlign")  # TVM's own takes the sum for the maximum
    pool = node("RoiAlign", ["x", "rois", "image"], ["y"], "pool", mode="max", sampling_ratio=2, output_height=3,
                output_width=3)
    path = written(tmp_path / "model.onnx", [pool], rois=np.float32([[0, 0, 4, 5]]), image=np.int64([0]))
    with pytest.raises(OneXNError, match=r"RoiAlign 'pool': would be computed wrong"):
        compile_model(path)
    assert not list((tmp_path / "cache").rglob("*")), "only what is right is remembered"


def test_an_operator_is_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "model.onnx", [node("Tanh", ["x"], ["t"]), node("Tanh", ["t"], ["y"])])
    compared: list[Node] = []
    compare = operators.check_nodes

    def counting(graph: Graph, nodes: list[Node]) -> list[bool]:
        compared.extend(nodes)
        return compare(graph, nodes)

    monkeypatch.setattr(operators, "check_nodes", counting)
    compile_model(path)
    assert [item.op for item in compared] == ["Tanh"], "the two are the same"
    compile_model(path)
    assert len(compared) == 1
    written(path, [node("Tanh", ["x"], ["t"]), node("Sinh", ["t"], ["y"])])
    compile_model(path)
    assert [item.op for item in compared[1:]] == ["Sinh"]


@pytest.mark.parametrize(("attributes", "same"), [({"axis": 1}, False), ({"axis": -1}, True)])
def test_attributes_make_another_operator(tmp_path: Path, attributes: dict[str, int], same: bool) -> None:
    graphs = [plan_file(written(tmp_path / f"{place}.onnx", [node("Softmax", ["x"], ["y"], **given)]),
                        find_target("host")).graph for place, given in enumerate(({"axis": -1}, attributes))]
    first, second = (operators.digest(graph, graph.nodes[0], find_target("host")) for graph in graphs)
    assert (first == second) == same


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder is wanted")
    path = written(tmp_path / "model.onnx", [node("Tanh", ["x"], ["y"])])
    x = random.standard_normal((1, 2, 6, 6)).astype(np.float32)
    assert np.allclose(compile_model(path).run(x), np.tanh(x), atol=1e-5)


def test_a_cache_that_cannot_be_read_only_costs_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuses)
    assert "digest" not in cache.Cache()


def test_without_a_home_nothing_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(cache.os.path, "expanduser", lambda path: path)  # what it gives without a home
    known = cache.Cache()
    known.add(["digest"])
    assert "digest" not in known
    assert not list(tmp_path.iterdir())


def test_what_no_reference_computes_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(feeds: object) -> list[np.ndarray]:
        raise NotImplementedError

    monkeypatch.setattr(operators, "references", lambda model: [unknown])
    compile_model(written(tmp_path / "model.onnx", [node("Tanh", ["x"], ["y"])]))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_the_steps_of_a_recurrence_are_compared_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      kind: str) -> None:
    gates, settings = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], {"linear_before_reset": 1} if kind == "GRU" else {}
    weights = {"w": random.standard_normal((2, gates * 4, 3)), "r": random.standard_normal((2, gates * 4, 4)),
               "b": random.standard_normal((2, 2 * gates * 4))}
    weights = {name: value.astype(np.float32) for name, value in weights.items()} | {"lengths": np.int32([9, 2])}
    path = tmp_path / "model.onnx"
    layer = node(kind, ["x", "w", "r", "b", "lengths"], ["y", "last"], hidden_size=4, direction="bidirectional",
                 **settings)
    path.write_bytes(make_model([layer], {"x": (9, 2, 3)}, ["y", "last"], weights).SerializeToString())
    compared: dict[str, bool] = {}
    check = operators.check_nodes

    def counting(graph: Graph, nodes: list[Node]) -> list[bool]:
        results = check(graph, nodes)
        compared.update({item.op: result for item, result in zip(nodes, results, strict=True)})
        return results

    monkeypatch.setattr(operators, "check_nodes", counting)
    assert compile_model(path, verify=True).verification["compared"]
    assert compared["Recurrence"], "no reference knew it"
    monkeypatch.setattr(recurrence, "_step", lambda *_: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    with pytest.raises(OneXNError, match="would be computed wrong"):
        compile_model(path, verify=False)


def broken(network: Network) -> Network:
    """With twice the weights in its kernel."""
    (call,) = (item for item in network.order if isinstance(item, KernelCall))
    for values in call.kernel.constants:
        if values.dtype == np.float32:
            values *= 2
    return network


def test_a_network_that_differs_names_its_first_layer(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(conv_model().SerializeToString())
    host = find_target("host")
    with pytest.raises(OneXNError, match=r"conv.*would be computed wrong"):
        compiling._compile(broken(plan_file(path, host)), host, 1, True)
    assert compiling._compile(broken(plan_file(path, host)), host, 1, False).verification == {
        "compared": False, "reason": "was not asked for"}


def test_an_output_that_spreads_rounding_excuses_no_other(tmp_path: Path) -> None:
    """Whole numbers of the last digits change with every rounding; the layer beside them does not."""
    model = conv_model()
    values = model.graph.input[0].name
    model.graph.node.extend([node("Mul", [values, "large"], ["digits"]),
                             node("Cast", ["digits"], ["whole"], to=TensorProto.INT64)])
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1e8), "large"))
    model.graph.output.append(onnx.ValueInfoProto(name="whole"))
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())
    host = find_target("host")
    assert compile_model(path, verify=True).verification["compared"]
    with pytest.raises(OneXNError, match="would be computed wrong"):
        compiling._compile(broken(plan_file(path, host)), host, 1, True)


def test_one_wrong_whole_number_is_refused_unless_a_near_tie_decides_it(tmp_path: Path) -> None:
    """A class among thousands, which is a small share of them."""
    scores = np.random.default_rng(0).standard_normal((1, 5000, 8)).astype(np.float32)
    path, nodes = tmp_path / "model.onnx", [node("Add", ["x", "scores"], ["y"]),
                                            node("ArgMax", ["y"], ["place"], axis=2)]
    model = make_model(nodes, {"x": (1, 5000, 8)}, ["place"], {"scores": scores})
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    path.write_bytes(model.SerializeToString())
    compiled = compile_model(path, verify=True)
    session = onnxruntime_session(model.SerializeToString())
    feeds = {"x": np.zeros(compiled.inputs[0].shape, np.float32)}
    expected = session.run(None, feeds)
    assert network_check._other_numbers(compiled, session, feeds, expected, expected) is None
    wrong = [expected[0].copy()]
    wrong[0].flat[77] = (wrong[0].flat[77] + 1) % 8
    assert "1 of 5000 values" in str(network_check._other_numbers(compiled, session, feeds, wrong, expected))
    feeds["x"].reshape(5000, 8)[77] = -scores[0, 77]  # all equal: any place may be the largest
    assert network_check._other_numbers(compiled, session, feeds, wrong, session.run(None, feeds)) is None


@pytest.mark.parametrize("item", [
    node("Loop", ["rounds", "going", "x"], ["", "y"], body=helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Add", ["state", "state"], ["sum"]), node("Neg", ["sum"], ["each"])],
        "body", [helper.make_tensor_value_info("round", TensorProto.INT64, []),
                 helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                 helper.make_tensor_value_info("state", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         *(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("sum", "each"))])),
    node("BatchNormalization", ["x", "scale", "shift", "mean", "variance"], ["y", "", ""], training_mode=1),
], ids=lambda item: item.op_type)
def test_outputs_without_a_name_are_compared_with_onnxruntime(tmp_path: Path, item: NodeProto) -> None:
    """Without one it ends the process."""
    ones = {name: np.ones(2, np.float32) for name in ("scale", "shift", "mean", "variance")}
    compiled = compile_model(written(tmp_path / "model.onnx", [item], rounds=np.int64(2), going=np.array(True), **ones))
    assert compiled.verification["compared"]
    x = random.standard_normal((1, 2, 6, 6)).astype(np.float32)
    expected = np.stack([-2 * x, -4 * x]) if item.op_type == "Loop" else 1 + (x - x.mean(
        (0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(compiled.run(x), expected, rtol=1e-4, atol=1e-5)


def test_the_artefact_says_what_was_compared(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(conv_model().SerializeToString())
    compiled = compile_model(path)
    assert compiled.verification["compared"]
    assert "onnxruntime" in compiled.verification["with"]
    assert compiled.verification["difference"] < 1e-5
    folder = compiled.save(tmp_path / "network")
    assert json.loads((folder / "metadata.json").read_text())["verification"] == compiled.verification
    assert load(folder).verification == compiled.verification


def test_what_onnxruntime_itself_rounds_is_no_fault(tmp_path: Path) -> None:
    """It multiplies int8 weights with rows that it rounds to eight bits; without its optimisations it does not."""
    nodes = [node("DequantizeLinear", ["q", "scale"], ["w"], axis=1), node("MatMul", ["x", "w"], ["y"])]
    path = written(tmp_path / "model.onnx", nodes, q=random.integers(-127, 128, (6, 5)).astype(np.int8),
                   scale=(random.random(5) * 0.1 + 0.01).astype(np.float32))
    x = random.standard_normal((1, 2, 6, 6)).astype(np.float32)
    plain, fused = (onnxruntime_session(path.read_bytes(), optimised=fuses).run(None, {"x": x})[0]
                    for fuses in (False, True))
    assert share_apart(fused, plain) > 1e-3, "or this test shows nothing"
    compiled = compile_model(path)
    assert compiled.verification["compared"]
    np.testing.assert_allclose(compiled.run(x), plain, rtol=1e-4, atol=1e-5)


def test_another_processor_is_compared_here_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(conv_model().SerializeToString())
    assert compile_model(path, target="cortex-a72").verification == {
        "compared": False, "reason": "was compiled for another processor"}
    assert compile_model(path, target="cortex-a72", verify=True).verification["compared"]


def test_verify_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(conv_model().SerializeToString())
    with pytest.raises(OneXNError, match="must be True, False or None"):
        compile_model(path, verify="yes")  # type: ignore[arg-type]


def test_infinities_nan_and_whole_numbers_are_no_rounding() -> None:
    one = np.float32([1, np.inf, np.nan])
    assert difference(one, one) is None
    for other in ([1, -np.inf, np.nan], [1, 2, np.nan], [1, np.inf, 0], [np.nan, np.inf, np.nan]):
        assert difference(np.float32(other), one)
        assert difference_each(np.float32(other), one)
    assert difference(np.int64([1, 2]), np.int64([1, 3])) == "1 of 2 values differ"
    assert difference_each(np.float32([1e-3, 1e9]), np.float32([2e-3, 1e9])), "a small value beside a large one"
    assert share_apart(np.float32([np.nan]), np.float32([1])) == 1
    assert share_apart(one, one) == 0
    for other in ([1, -np.inf, np.nan], [1, np.nan, np.nan], [1, np.inf, np.inf]):
        assert share_apart(np.float32(other), one) == 1
    assert share_apart(np.int64([1, 2]), np.int64([1, 2])) == 0
    assert share_apart(np.int64([1, 2, 3, 4]), np.int64([1, 2, 3, 5])) == 0.25
    assert share_apart(np.zeros(0, np.int64), np.zeros(0, np.int64)) == 0


@pytest.mark.parametrize("make", [inputs.ordinary, inputs.positive, inputs.large, inputs.extreme])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_an_input_of_no_axes_is_an_array(make, dtype) -> None:
    """onnxruntime takes nothing else: what it refuses is compared with the reference alone."""
    made = make(TensorSpec((), np.dtype(dtype)))
    assert isinstance(made, np.ndarray)
    assert (made.shape, made.dtype) == ((), np.dtype(dtype))
