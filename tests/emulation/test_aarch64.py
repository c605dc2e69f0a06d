"""Networks cross-compiled for 64-bit ARM boards, run whole by TVM's own aarch64 runtime under the emulator."""

from __future__ import annotations

import numpy as np
import pytest

from onexn_plugins.tvm_backend.output.artefact import read, write
from onexn_plugins.tvm_backend.processors import find_target
from tests.tvm_backend import tiny_network

pytest.importorskip("tvm")


@pytest.mark.parametrize("name", ["cortex-a53", "cortex-a72", "cortex-a76"])
def test_a_network_of_tvms_own_kernels(run_on_arm, tmp_path, name):
    target = find_target(name)
    write(tmp_path / "network", tiny_network.compiled(target), target, tiny_network.METADATA)
    artefact = read(tmp_path / "network", run_here=False)
    x = np.random.default_rng(1).standard_normal(tiny_network.INPUT_SHAPE, np.float32)
    (y,) = run_on_arm(artefact.library, x, cpu=name)
    np.testing.assert_allclose(y, tiny_network.expected(x), atol=1e-5)
