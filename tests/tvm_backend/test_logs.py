"""TVM says nothing on the terminal that a user cannot act on; everything else is passed on."""

from __future__ import annotations

import os

import numpy as np
from onnx import helper, save

from onexn_plugins.tvm_backend import compile_model
from onexn_plugins.tvm_backend.logs import TVM_CHATTER, without_lines
from tests.tvm_backend.onnx_files import make_model


def test_a_network_compiles_and_runs_without_a_word(tmp_path, capfd):
    """A class token's Gather by a constant, and a power: TVM warns of both."""
    nodes = [helper.make_node("Gather", ["x", "first"], ["token"], axis=1),
             helper.make_node("Pow", ["token", "half"], ["y"])]
    path = tmp_path / "token.onnx"
    save(make_model(nodes, {"x": (1, 4, 3)}, ["y"], {"first": np.array(0), "half": np.float32(0.5)}), path)
    x = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    np.testing.assert_allclose(compile_model(path).run(x), np.sqrt(x[:, 0]), rtol=1e-6)
    assert capfd.readouterr().err == ""


def test_other_lines_are_passed_on(capfd):
    with without_lines(*TVM_CHATTER):
        os.write(2, b"Warning: Fast mode segfaults when there are\nthe disk burns\n")
    assert capfd.readouterr().err == "the disk burns\n"
