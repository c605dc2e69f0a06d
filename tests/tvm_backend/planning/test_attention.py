"""What products of activations read and write in place of moved values, and that the whole is right."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import NodeProto, helper
from torch import Tensor, nn

from onexn_plugins import export_onnx
from onexn_plugins.tvm_backend import compile_model
from onexn_plugins.tvm_backend.planning.fusion import KernelCall
from onexn_plugins.tvm_backend.planning.network import plan_file
from onexn_plugins.tvm_backend.processors import find_target
from tests.tvm_backend.onnx_files import make_model

node = helper.make_node
X = {"x": (2, 6, 24)}
WEIGHTS = {
    "scale": np.float32(0.3), "scales": np.linspace(0.5, 2, 6, dtype=np.float32), "two": np.float32([2]),
    "zero": np.int64([0]), "one": np.int64([1]), "eight": np.int64([8]), "sixteen": np.int64([16]),
    "last": np.int64([-1]), "heads": np.int64([2, 6, 3, 2, 4]), "heads3": np.int64([3, 2, 2, 6, 4]),
    "three": np.int64([2, 2, 6, 4]), "back": np.int64([2, 6, 8]), "sixths": np.int64([12, 12]),
    "index0": np.int64(0), "index1": np.int64(1), "index2": np.int64(2),
    "gamma": np.linspace(0.5, 2, 24, dtype=np.float32), "beta": np.linspace(-1, 1, 24, dtype=np.float32),
}
HEADS = [node("Reshape", ["x", "heads"], ["h"]), node("Transpose", ["h"], ["t"], perm=[2, 0, 3, 1, 4]),
         *(node("Gather", ["t", f"index{place}"], [name], axis=0) for place, name in enumerate("qkv")),
         node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2])]
SOFTMAX = node("Softmax", ["s"], ["p"], axis=-1)
MIXED = [node("MatMul", ["p", "v"], ["m"]), node("Transpose", ["m"], ["n"], perm=[0, 2, 1, 3]),
         node("Reshape", ["n", "back"], ["y"])]


def steps(path, nodes: list[NodeProto], outputs: tuple[str, ...] = ("y",), opset: int = 17) -> list[str]:
    """Every step, kernels by their family, reshapes left out; the network was compiled and is right."""
    model = make_model(nodes, X, outputs, WEIGHTS, opset)
    path.write_bytes(model.SerializeToString())
    network = plan_file(path, find_target("host"))
    x = np.random.default_rng(0).standard_normal(X["x"], dtype=np.float32)
    expected = reference(model, x)
    made = compile_model(path, verify=False).run(x)
    for ours, right in zip(made if isinstance(made, (list, tuple)) else [made], expected, strict=True):
        np.testing.assert_allclose(ours, right, rtol=2e-5, atol=2e-6)
    return [step.chosen.family.name if isinstance(step, KernelCall) else f"({step.op})" for step in network.order
            if isinstance(step, KernelCall) or step.op != "Reshape"]


def reference(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """onnxruntime's results: ONNX's own implementation knows the newest Softmax alone."""
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})


def test_attention_is_one_kernel_that_reads_what_heads_are_views_of(tmp_path):
    nodes = [*HEADS, node("Mul", ["q", "scale"], ["qs"]), node("MatMul", ["qs", "kt"], ["s"]), SOFTMAX, *MIXED]
    assert steps(tmp_path / "net.onnx", nodes) == ["attention"]
    nodes = [*HEADS, node("MatMul", ["q", "kt"], ["u"]), node("Mul", ["u", "scale"], ["s"]), SOFTMAX, *MIXED]
    assert steps(tmp_path / "net.onnx", nodes) == ["attention"]


def test_what_others_read_is_made(tmp_path):
    product = node("MatMul", ["q", "kt"], ["s"])
    assert steps(tmp_path / "net.onnx", [*HEADS, product, SOFTMAX, *MIXED], ("y", "p")) == [
        "matmul", "softmax", "matmul"]
    assert steps(tmp_path / "net.onnx", [*HEADS, product, SOFTMAX, *MIXED], ("y", "s")) == [
        "matmul", "softmax", "matmul"]
    assert steps(tmp_path / "net.onnx", [*HEADS, product, SOFTMAX, *MIXED], ("y", "n")) == ["attention"]
    assert steps(tmp_path / "net.onnx", [*HEADS, product, SOFTMAX, *MIXED], ("y", "kt")) == [
        "transpose", "(Gather)", "transpose", "attention"]


def test_a_mask_in_between_leaves_three_kernels(tmp_path):
    nodes = [*HEADS, node("MatMul", ["q", "kt"], ["u"]), node("Add", ["u", "scales"], ["s"]), SOFTMAX, *MIXED]
    assert steps(tmp_path / "net.onnx", nodes) == ["matmul", "(Add)", "softmax", "matmul"]


def test_softmax_along_the_other_axis_and_a_product_with_itself(tmp_path):
    product, across = node("MatMul", ["q", "kt"], ["s"]), node("Softmax", ["s"], ["p"], axis=2)
    assert steps(tmp_path / "net.onnx", [*HEADS, product, across, *MIXED]) == ["matmul", "(Softmax)", "matmul"]
    itself = [*HEADS, product, SOFTMAX, node("MatMul", ["p", "p"], ["y"])]
    assert steps(tmp_path / "net.onnx", itself) == ["matmul", "softmax", "matmul"]


def test_scores_by_one_number_per_column_are_no_factor(tmp_path):
    nodes = [*HEADS, node("MatMul", ["q", "kt"], ["u"]), node("Mul", ["u", "scales"], ["s"]), SOFTMAX, *MIXED]
    assert steps(tmp_path / "net.onnx", nodes) == ["matmul", "(Mul)", "softmax", "matmul"]


@pytest.mark.parametrize(("nodes", "expected"), [
    ([node("Slice", ["x", "zero", "eight", "last"], ["a"]), node("Slice", ["x", "eight", "sixteen", "last"], ["b"]),
      node("Transpose", ["b"], ["c"], perm=[0, 2, 1]), node("MatMul", ["a", "c"], ["y"])], ["matmul"]),
    ([node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("MatMul", ["t", "x"], ["y"])], ["matmul"]),
    ([node("Transpose", ["x"], ["t"]), node("Transpose", ["t"], ["u"], perm=[2, 0, 1]),
      node("MatMul", ["x", "u"], ["y"])], ["matmul"]),
    ([node("Gather", ["x", "index1"], ["g"], axis=0), node("Transpose", ["g"], ["t"]),
      node("MatMul", ["x", "t"], ["y"])], ["matmul"]),  # one matrix for all of a batch
    ([node("Gather", ["x", "index1"], ["g"], axis=0),
      node("Gemm", ["g", "g"], ["y"], transA=1, alpha=0.5)], ["matmul"]),
    ([node("Gather", ["x", "index1"], ["g"], axis=0), node("Slice", ["g", "zero", "one", "zero"], ["c"]),
      node("Gemm", ["g", "g", "c"], ["y"], transA=1, beta=2.0)], ["(Gather)", "(Slice)", "(Mul)", "matmul", "(Add)"]),
    ([node("Relu", ["x"], ["r"]), node("Transpose", ["r"], ["t"], perm=[0, 2, 1]), node("MatMul", ["r", "t"], ["m"]),
      node("Transpose", ["m"], ["y"], perm=[2, 0, 1])], ["(Relu)", "matmul", "transpose"]),  # its columns move
    ([node("LayerNormalization", ["x", "gamma", "beta"], ["y"])], ["layer norm"]),
    ([node("LayerNormalization", ["x", "gamma"], ["y"], epsilon=1e-3)], ["layer norm"]),
    ([node("Softmax", ["x"], ["y"], axis=1)], ["(Softmax)"]),
])
def test_one_operator(nodes, expected, tmp_path):
    assert steps(tmp_path / "net.onnx", nodes) == expected


def test_softmax_of_an_old_opset_goes_over_several_axes(tmp_path):
    assert steps(tmp_path / "net.onnx", [node("Softmax", ["x"], ["y"], axis=1)], opset=11) == ["(Softmax)"]
    assert steps(tmp_path / "net.onnx", [node("Softmax", ["x"], ["y"], axis=2)], opset=11) == ["softmax"]


class Block(nn.Module):
    """A convolution's result goes through attention and is added to: nothing may write over what heads still read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.back = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(8, 24, 1)
        self.mix = nn.Conv2d(24, 24, 1)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        q, k, v = x.flatten(2).transpose(1, 2).reshape(len(x), -1, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = self.mix(x) + x
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        mixed = self.norm(mixed.transpose(1, 2).reshape(len(x), -1, 8))
        return self.back(mixed.transpose(1, 2).reshape(len(x), 8, *x.shape[2:])) + y


def test_a_network_with_attention(tmp_path):
    model, x = Block().eval(), torch.randn(1, 3, 5, 7)
    path = export_onnx(model, x, tmp_path / "net.onnx")
    families = [step.chosen.family.name for step in plan_file(path, find_target("host")).order
                if isinstance(step, KernelCall)]
    assert families.count("attention") == 1
    assert families.count("layer norm") == 1
    with torch.no_grad():
        expected = model.double()(x.double()).numpy()
    np.testing.assert_allclose(compile_model(path).run(x.numpy()), expected, atol=1e-5)
