"""Instance norms have a kernel, which takes in what follows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from onexn_plugins import export_onnx
from onexn_plugins.tvm_backend import compile_model
from onexn_plugins.tvm_backend.planning.fusion import KernelCall
from onexn_plugins.tvm_backend.planning.network import plan_file
from onexn_plugins.tvm_backend.processors import find_target
from tests.tvm_backend.onnx_files import make_model


def steps(path: Path) -> list[str]:
    return [step.chosen.family.name if isinstance(step, KernelCall) else f"({step.op})"
            for step in plan_file(path, find_target("host")).order]


class Residual(nn.Module):
    """Convolutions, each normed; the second one's result is added to what the first one read."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.InstanceNorm2d(6, affine=True), nn.ReLU(),
                                   nn.Conv2d(6, 6, 3, padding=1), nn.InstanceNorm2d(6, affine=True))
        for norm in (self.convs[1], self.convs[4]):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs(x)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_residual_block_runs_in_four_kernels(tmp_path: Path, batch: int) -> None:
    model, x = Residual().eval(), torch.randn(batch, 6, 7, 9)
    path = export_onnx(model, x, tmp_path / "net.onnx")
    assert [step for step in steps(path) if step == "instance norm"] == ["instance norm"] * 2
    assert not [step for step in steps(path) if step.startswith("(")], "addition and activation are taken in"
    with torch.no_grad():
        expected = model.double()(x.double()).numpy()
    np.testing.assert_allclose(compile_model(path).run(x.numpy()), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 40), (1, 3, 5, 6), (1, 3, 2, 4, 5)])
def test_signals_images_and_volumes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    constants = {name: rng.standard_normal(3).astype(np.float32) for name in ("scale", "shift")}
    node = helper.make_node("InstanceNormalization", ["x", "scale", "shift"], ["y"], epsilon=1e-2)
    path = tmp_path / "net.onnx"
    path.write_bytes(make_model([node], {"x": shape}, ["y"], constants, 19).SerializeToString())
    assert steps(path) == ["instance norm"]
    x = rng.standard_normal(shape).astype(np.float32)
    expected = nn.functional.instance_norm(torch.from_numpy(x).double(), eps=1e-2, **{
        name: torch.from_numpy(constants[key]).double() for name, key in (("weight", "scale"), ("bias", "shift"))})
    np.testing.assert_allclose(compile_model(path).run(x), expected.numpy(), atol=1e-5)


def test_a_scale_computed_at_run_time_is_left(tmp_path: Path) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["m"]), helper.make_node("Reshape", ["m", "three"], ["s"]),
             helper.make_node("InstanceNormalization", ["x", "s", "shift"], ["y"])]
    path = tmp_path / "net.onnx"
    constants = {"three": np.array([3]), "shift": np.zeros(3, np.float32)}
    path.write_bytes(make_model(nodes, {"x": (1, 3, 5, 6)}, ["y"], constants, 19).SerializeToString())
    assert steps(path)[-1] == "(InstanceNormalization)"
