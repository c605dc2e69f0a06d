"""A profile names every layer once, in the order the kernels run."""

from __future__ import annotations

import pytest
import torch

from onexn_plugins import export_onnx
from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model, load
from onexn_plugins.tvm_backend.running.profile import Step
from tests.tvm_backend.networks import Mixed, Mobile, prune


@pytest.fixture(scope="module", params=[Mixed, Mobile])
def compiled(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "network.onnx"
    channels = 8 if request.param is Mobile else 3
    return compile_model(export_onnx(prune(request.param()), torch.randn(1, channels, 24, 24), path))


def test_every_layer_is_timed_once(compiled):
    profile = compiled.profile(repeat=3)
    named = [name for kernel in profile.kernels if kernel.kernel != "tvm" for name in kernel.name.split(" + ")]
    expected = [layer.name for layer in compiled.layers if not layer.reason.startswith("no kernel")]
    assert sorted(name for name in named if name in expected) == sorted(expected)
    assert sum(kernel.share for kernel in profile.kernels) == pytest.approx(1)
    assert sum(kernel.macs for kernel in profile.kernels) == sum(layer.macs for layer in compiled.layers)
    for kernel in profile.kernels:
        assert kernel.milliseconds > 0
        assert (kernel.roofline is None) == (kernel.macs == 0)


def test_limits_are_those_of_a_processor(compiled):
    limits = compiled.profile(repeat=1).limits
    assert 1e8 < limits.macs < 1e12
    assert 1e8 < limits.bandwidth < 1e12
    assert limits.seconds(int(limits.macs), 0) == pytest.approx(1)
    assert limits.seconds(0, int(2 * limits.bandwidth)) == pytest.approx(2)


def test_a_saved_network_can_be_profiled_and_runs_as_before(compiled, tmp_path):
    loaded = load(compiled.save(tmp_path / "network.onexn"))
    array = torch.randn(compiled.inputs[0].shape).numpy()
    before = loaded.run(array)
    assert [kernel.name for kernel in loaded.profile(repeat=1).kernels] == [
        kernel.name for kernel in compiled.profile(repeat=1).kernels]
    assert (loaded.run(array) == before).all()


def test_a_profile_of_nothing_is_refused(compiled):
    with pytest.raises(OneXNError, match="cannot time 0 runs"):
        compiled.profile(repeat=0)


@pytest.mark.parametrize("entry", [
    {"kernel": "conv_1x1", "layers": [float("inf")], "weight_bytes": 4},
    {"kernel": "conv_1x1", "layers": [0], "weight_bytes": float("inf")},
    {"kernel": "conv_1x1", "layers": ["0"], "weight_bytes": 4},
    {"kernel": "conv_1x1", "layers": [1], "weight_bytes": 4},
    {"kernel": "conv_1x1", "layers": [0]},
])
def test_damaged_steps_are_refused(entry: dict) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Step.from_dict(entry, layers=1)
