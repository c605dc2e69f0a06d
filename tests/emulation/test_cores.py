"""A network compiled for every 64-bit ARM core, run as that core where the emulator has it, and compared with torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("tvm")
from onexn_plugins import export_onnx
from onexn_plugins.tvm_backend import compile_model, targets
from onexn_plugins.tvm_backend.output.artefact import read
from tests.emulation.programs import run_program
from tests.tvm_backend.networks import Mobile, UpSampling, prune, prune_transposed

CORES = [name for name in targets() if name.startswith(("cortex-a5", "cortex-a7", "neoverse")) and name != "cortex-a7"]
# What Debian's emulator does not have by name runs as a core with all it can emulate.
ANY = "max"


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray]:
    model, x = prune(Mobile()), torch.randn(1, 8, 14, 14, generator=torch.Generator().manual_seed(0))
    path = export_onnx(model, x, tmp_path_factory.mktemp("cores") / "model.onnx")
    with torch.no_grad():
        return Path(path), x.numpy(), model(x).numpy()


@pytest.mark.parametrize("core", CORES)
def test_a_network_for_each_core_equals_torch(core, exported, arm64, run_on_arm, tmp_path):
    path, x, expected = exported
    compile_model(path, target=core).save(tmp_path / "network")
    cpu = core if core in arm64.cores else ANY
    (output,) = run_on_arm(read(tmp_path / "network", run_here=False).library, x, cpu=cpu)
    np.testing.assert_allclose(output, expected, atol=1e-4 * np.abs(expected).max())


@pytest.fixture(scope="module")
def up_sampling(tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray]:
    model = prune_transposed(UpSampling(), 4, 0.5)
    x = torch.randn(1, 8, 6, 5, generator=torch.Generator().manual_seed(0))
    path = export_onnx(model, x, tmp_path_factory.mktemp("transposed") / "model.onnx")
    with torch.no_grad():
        return Path(path), x.numpy(), model(x).numpy()


def test_transposed_convolutions_on_64_bits(up_sampling, run_on_arm, tmp_path):
    path, x, expected = up_sampling
    compile_model(path, target="cortex-a53").save(tmp_path / "network")
    (output,) = run_on_arm(read(tmp_path / "network", run_here=False).library, x, cpu="cortex-a53")
    np.testing.assert_allclose(output, expected, atol=1e-4 * np.abs(expected).max())


def test_transposed_convolutions_in_a_program_on_32_bits(up_sampling, arm, tmp_path):
    path, x, expected = up_sampling
    compile_model(path, target="cortex-a7").save(tmp_path / "network")
    (output,), _ = run_program(read(tmp_path / "network", run_here=False), tmp_path, [x], emulator=arm)
    np.testing.assert_allclose(output, expected, atol=1e-4 * np.abs(expected).max())
