"""What runs without a kernel of ours is named before it is compiled."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from onexn_plugins.tvm_backend import SlowOperators, compile_model, describe_onnx
from onexn_plugins.tvm_backend.planning.unserved import Unserved, summary, warn_of
from tests.tvm_backend.onnx_files import make_model

node = helper.make_node


@pytest.fixture
def path(tmp_path):
    nodes = [node("Conv", ["x", "w"], ["c"]), node("MaxPool", ["c"], ["p"], "pool3d", kernel_shape=[3, 3, 3]),
             node("Cos", ["p"], ["y"], "wave")]
    model = make_model(nodes, {"x": (1, 4, 8, 20, 20)}, ["y"], {"w": np.ones((4, 4, 1, 1, 1), np.float32)})
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "model.onnx"


def test_inspecting_lists_them_with_what_they_cost(path):
    found = describe_onnx(path)
    assert found["layers"][0]["family"] is not None
    pool, wave = found["others"]
    assert (pool["name"], pool["operator"], pool["macs"]) == ("pool3d", "MaxPool", 4 * 6 * 18 * 18 * 27)
    assert (wave["operator"], wave["macs"]) == ("Cos", 0)
    assert pool["milliseconds"] > 2 * pool["onnxruntime_milliseconds"] > 0
    assert wave["milliseconds"] == wave["onnxruntime_milliseconds"]


def test_a_network_that_will_wait_for_them_is_warned_of(monkeypatch, path):
    monkeypatch.setattr("onexn_plugins.tvm_backend.planning.unserved._WORTH_A_WARNING", 0.01)
    monkeypatch.setattr("onexn_plugins.tvm_backend.compile.check_operators", _stop)  # the warning comes before that
    with pytest.warns(SlowOperators, match=r"MaxPool 'pool3d', Cos 'wave': about .* ms a run, .* in onnxruntime"), \
            pytest.raises(Exception, match="cannot be compiled"):
        compile_model(path)


def _stop(*_arguments):
    raise RuntimeError("reached")


def test_nothing_is_said_of_what_costs_little(recwarn):
    warn_of("model", [Unserved("a", "Cos", 0, 0.2, 0.2), Unserved("b", "MaxPool", 10**5, 0.1, 0.01)])
    assert not recwarn.list
    assert summary([]) == ""


def test_a_summary_begins_with_the_slowest():
    wave = Unserved("a", "Cos", 0, 0.2, 0.2)
    found = [wave, Unserved("b", "Conv", 10**7, 9.6, 0.4), wave]
    assert summary(found) == "Conv 'b', Cos ×2: about 10 ms a run, 0.8 in onnxruntime"


def test_the_command_says_it_in_a_line(capsys):
    from onexn_plugins.cli import _plain_warnings

    with _plain_warnings():
        warn_of("model.onnx", [Unserved("b", "Conv", 10**7, 9.6, 0.4)])
    expected = "onexn: model.onnx: no kernel of ours computes Conv 'b': about 9.6 ms a run, 0.4 in onnxruntime\n"
    assert capsys.readouterr().err == expected
