"""The benchmark of whole networks: files of an opset, what is said of them, and that the published rows are clean."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

pytest.importorskip("tvm")

from benchmarks.networks.__main__ import RESULTS
from benchmarks.networks.files import OPSETS, NoFile, in_opset
from benchmarks.networks.page import summary, write
from benchmarks.networks.tasks import page as tasks_page
from benchmarks.networks.tasks.zoo import TASKS
from onexn_plugins.tvm_backend import compile_model
from onexn_plugins.tvm_backend.reading.opset import opset_of
from onexn_plugins.zoo import load_model

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


def test_tasks_are_summed_up(tmp_path):
    times = {"value": 2.5, "low": 2.0, "high": 3.0}
    row = {"network": "a", "task": "text", "shape": [1, 3, 8, 8], "state": "right", "difference_exact": 1e-6,
           "adapters": "same", "macs": 0.25, "onnxruntime_dense": times, "onnxruntime_pruned": times, "ours": times,
           "faster": times, "without": ["lstm"], "without_share": 0.5, "compile_processor_seconds": 3.0}
    ended = {"network": "b", "task": "text", "shape": [1, 3, 8, 8], "state": "not done", "said": "in 9 s"}
    assert tasks_page.summary([row, ended]) == (
        "2 networks, 1 of them right, 1 at least 2 times faster than onnxruntime runs them dense.")
    facts = {"command": "this", "tolerance": 1e-4, "ratio": 0.75, "rounds": 5, "block_size": 4,
             "machine": {"cores": 2, "processor": "one", "vector_units": ["avx2"]}}
    tasks_page.write(tmp_path / "rows.json", {**facts, "networks": [row, ended]})
    text = (tmp_path / "rows.md").read_text()
    assert "| a | text | 1×3×8×8 | right |" in text
    assert "not done: in 9 s" in text
    assert "lstm" in text


def test_the_published_page_of_tasks_is_made_from_its_rows():
    result = json.loads((RESULTS / "tasks.json").read_text())
    assert (RESULTS / "tasks.md").read_text() == tasks_page.markdown(result)
    assert all(row["state"] == "right" and "+changes" not in row["commit"] for row in result["networks"])


def test_a_network_is_made_in_a_process_of_its_own():
    """Of timm's parts, which import torchvision, whatever torch that was built for."""
    made = "from benchmarks.networks.published.keypoints import hrnet; hrnet()"
    subprocess.run([sys.executable, "-c", made], check=True, capture_output=True)


def test_detectors_have_the_published_sizes():
    yolo, faces = (load_model(TASKS[name].model) for name in ("yolov8n", "blazeface"))
    assert sum(parameter.numel() for parameter in yolo.parameters()) == 3_157_184
    assert yolo(torch.zeros(1, 3, 64, 64)).shape == (1, 84, 64 + 16 + 4)
    assert [output.shape[1:] for output in faces(torch.zeros(1, 3, 128, 128))] == [(896, 1), (896, 16)]
