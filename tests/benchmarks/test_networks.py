"""The benchmark of whole networks: files of an opset, what is said of them, and that the published rows are clean."""

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

pytest.importorskip("tvm")

from benchmarks.networks.__main__ import RESULTS
from benchmarks.networks.files import OPSETS, NoFile, in_opset
from benchmarks.networks.page import summary, write
from onexn_plugins.tvm_backend import compile_model
from onexn_plugins.tvm_backend.reading.opset import opset_of

IMAGE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """What opsets write most differently: hard-swish, squeeze-excite, layer norm and GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze, self.norm = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.LayerNorm(8)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.conv(x))
        x = x * nn.functional.hardsigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        return nn.functional.gelu(self.linear(self.norm(x.mean((2, 3)))))


@pytest.mark.parametrize(("opset", "tool"), [(11, "torchscript"), (13, "torchscript"), (15, "torchscript"),
                                             (17, "torchscript"), (19, "dynamo"), (21, "converter")])
def test_a_file_of_any_opset_computes_the_same(opset, tool, tmp_path):
    model = Net().eval()
    file = in_opset(model, IMAGE, opset, tool)
    assert opset_of(onnx.load_model_from_string(file)) == opset
    (tmp_path / "net.onnx").write_bytes(file)
    output = compile_model(tmp_path / "net.onnx").run(IMAGE.numpy())
    np.testing.assert_allclose(output, model(IMAGE).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(("tool", "said"), [("dynamo", "writes opset 18 instead"), ("converter", "Previous")])
def test_what_a_tool_cannot_write_is_told(tool, said):
    with pytest.raises(NoFile, match=said):
        in_opset(Net().eval(), IMAGE, 11, tool)


def test_rows_are_summed_up(tmp_path):
    right = {"network": "a", "state": "right", "difference_torch": 1e-6, "difference_onnxruntime": 2e-6}
    refused = {"network": "c", "state": "no file", "said": "No Adapter"}
    exact = {"network": "d", "state": "right", "difference_exact": 1.5e-6, "difference_torch": 9e-6,
             "difference_onnxruntime": 9e-6}
    rows = [right, right | {"network": "b", "state": "wrong"}, refused, exact]
    told = "3 networks, 3 cases, 2 of them right, largest difference 2.0e-06; 1 files that their tool cannot write."
    assert summary(rows) == told
    write(tmp_path / "rows.json", {"command": "this", "tolerance": 1e-4, "networks": rows})
    assert json.loads((tmp_path / "rows.json").read_text())["networks"] == rows
    assert "no file: No Adapter" in (tmp_path / "rows.md").read_text()


@pytest.mark.parametrize("name", ["networks.json", "opsets.json"])
def test_published_rows_are_right_and_of_a_commit(name):
    rows = json.loads((RESULTS / name).read_text())["networks"]
    assert all(row["state"] in ("right", "no file") and "+changes" not in row["commit"] for row in rows)
    if name == "opsets.json":
        assert {row["opset"] for row in rows if row["state"] == "right"} >= set(OPSETS)
