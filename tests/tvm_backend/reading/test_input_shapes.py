"""Dynamic dimensions get a size from the caller, and nothing else about an input changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model, inspect_onnx
from tests.tvm_backend.onnx_files import make_model

WEIGHT = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """x [N, 3, H, W] through a convolution, times gate [N, 8, 1, 1]."""
    nodes = [helper.make_node("Conv", ["x", "weight"], ["h"]), helper.make_node("Mul", ["h", "gate"], ["y"])]
    model = make_model(nodes, {"x": ("N", 3, "H", "W"), "gate": ("N", 8, 1, 1)}, ["y"], {"weight": WEIGHT})
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("batch", [1, 2])
def test_dynamic_dimensions_are_fixed(path: Path, batch: int) -> None:
    """A dimension of the same name in another input gets the same size."""
    compiled = compile_model(path, input_shapes={"x": (batch, 3, 8, 9)})
    assert [item.shape for item in compiled.inputs] == [(batch, 3, 8, 9), (batch, 8, 1, 1)]
    random = np.random.default_rng(1)
    feeds = {item.name: random.standard_normal(item.shape, np.float32) for item in compiled.inputs}
    (expected,) = onnxruntime.InferenceSession(path.read_bytes()).run(None, feeds)
    np.testing.assert_allclose(compiled.run(feeds), expected, atol=1e-5)
    assert inspect_onnx(path, input_shapes={"x": (batch, 3, 8, 9)})[0]["macs"] == batch * 8 * 27 * 6 * 7


@pytest.mark.parametrize(("shapes", "complaint"), [
    (None, r"input 'x': its dimension 0 \(N\) is dynamic. Fix it with --input-shape x=1,3,224,224 on the command line, "
           r"or with compile_model\(..., input_shapes=\{'x': \(1, 3, 224, 224\)\}\)"),
    ({"gate": (1, 8, 1, 1)}, r"input 'x': its dimension 2 \(H\) is dynamic"),
    ({"z": (1, 3, 8, 8)}, r"input 'z': the model has no input of this name, it has x \[N, 3, H, W\], gate"),
    ({"x": (1, 4, 8, 8)}, r"input 'x': the shape \[1, 4, 8, 8\] was asked for, and the file states \[N, 3, H, W\]"),
    ({"x": (1, 3, 8)}, "input 'x': the shape .* was asked for, and the file states"),
    ({"x": (1, 3, 0, 8)}, r"input 'x': \(1, 3, 0, 8\) is no shape"),
    ({"x": (1, 3, 8.5, 8)}, "input 'x': .* is no shape"),
    ({"x": "1,3,8,8"}, "input 'x': '1,3,8,8' is no shape"),
    ({"x": (1, 3, 8, 8), "gate": (2, 8, 1, 1)}, None),
    ({"": (1, 3, 8, 8)}, r"input shape: which input it is of is not clear: the model has x \[N, 3, H, W\], gate"),
])
def test_shapes_that_do_not_fit(path: Path, shapes: dict | None, complaint: str | None) -> None:
    if complaint is None:  # broadcast over the batch: allowed, as the file states the two apart
        assert compile_model(path, input_shapes=shapes).outputs[0].shape == (2, 8, 6, 6)
        return
    with pytest.raises(OneXNError, match=complaint):
        compile_model(path, input_shapes=shapes)


def test_an_unnamed_shape_is_of_the_only_dynamic_input(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "offset"], ["y"])]
    model = make_model(nodes, {"x": ("N", 3), "offset": (3,)}, ["y"])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    compiled = compile_model(tmp_path / "model.onnx", input_shapes={"": (4, 3)})
    assert compiled.inputs[0].shape == (4, 3)
