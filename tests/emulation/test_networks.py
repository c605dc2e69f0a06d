"""Real networks, 1×4-pruned at 75 %: torch = onnxruntime = TVM here = TVM on aarch64 = the program on armv7."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from onexn_plugins import export_onnx, fold
from onexn_plugins.zoo import load_model
from tests.emulation.programs import run_program

for package in ("tvm", "onnxruntime", "torch_pruning"):
    pytest.importorskip(package)
from onexn_plugins.torch_pruning import OneXNPruner  # noqa: E402
from onexn_plugins.tvm_backend import compile_model  # noqa: E402
from onexn_plugins.tvm_backend.output.artefact import read  # noqa: E402

PIXELS = 64  # small: the emulator is a hundred times slower than a core


@dataclass(frozen=True)
class Exported:
    """A network's file, an input and what torch makes of it."""

    path: Path
    x: np.ndarray
    y: np.ndarray

    def check(self, output: np.ndarray) -> None:
        """Within 1e-4 of the output's scale."""
        assert output.shape == self.y.shape
        assert np.abs(output - self.y).max() <= 1e-4 * np.abs(self.y).max()


@pytest.fixture(scope="module", params=["mobilenet_v2", "resnet18"])
def exported(request, tmp_path_factory) -> Exported:
    model = load_model(request.param)
    x = torch.randn(1, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(1))
    OneXNPruner(model, x, block_size=4, pruning_ratio=0.75).step()
    path = export_onnx(fold(model), x, tmp_path_factory.mktemp("exported") / f"{request.param}.onnx")
    with torch.no_grad():
        return Exported(Path(path), x.numpy(), model(x).numpy())


def test_here(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    exported.check(session.run(None, {session.get_inputs()[0].name: exported.x})[0])
    compiled = compile_model(exported.path)
    assert sum(layer.sparse for layer in compiled.layers) > len(compiled.layers) / 4
    exported.check(compiled.run(exported.x))


def test_aarch64_with_tvms_runtime(exported, run_on_arm, tmp_path):
    compile_model(exported.path, target="cortex-a72").save(tmp_path / "network")
    saved = read(tmp_path / "network", run_here=False)
    (output,) = run_on_arm(saved.library, exported.x, cpu="cortex-a72")
    exported.check(output)


def test_armv7_without_a_runtime(exported, arm, tmp_path):
    compile_model(exported.path, target="cortex-a7").save(tmp_path / "network")
    saved = read(tmp_path / "network", run_here=False)
    (output,), _ = run_program(saved, tmp_path, [exported.x], emulator=arm)
    exported.check(output)


def test_long_integers_on_armv7(arm, tmp_path):
    """Its compiler has division and conversions of 64 bits under names of its own."""
    from onnx import TensorProto, helper, numpy_helper

    node, kinds = helper.make_node, {"INT64": TensorProto.INT64, "FLOAT": TensorProto.FLOAT}
    nodes = [node("Cast", ["x"], ["long"], to=kinds["INT64"]), node("Div", ["long", "seven"], ["quotient"]),
             node("Mod", ["long", "seven"], ["rest"]), node("ArgMax", ["x"], ["place"], axis=1),
             node("Add", ["quotient", "place"], ["sum"]), node("Mul", ["sum", "million"], ["large"]),
             node("Sub", ["large", "rest"], ["difference"]), node("Cast", ["difference"], ["y"], to=kinds["FLOAT"])]
    constants = [numpy_helper.from_array(np.array(value), name)
                 for name, value in (("seven", 7), ("million", 10**9))]
    graph = helper.make_graph(nodes, "long", [helper.make_tensor_value_info("x", kinds["FLOAT"], [2, 6])],
                              [helper.make_tensor_value_info("y", kinds["FLOAT"], [2, 6])], constants)
    path = tmp_path / "long.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)],
                                       ir_version=8).SerializeToString())
    x = np.random.default_rng(0).uniform(-99, 99, (2, 6)).astype(np.float32)
    expected = compile_model(path).run(x)
    compile_model(path, target="cortex-a7").save(tmp_path / "network")
    (output,), _ = run_program(read(tmp_path / "network", run_here=False), tmp_path, [x], emulator=arm)
    np.testing.assert_array_equal(output, expected)
