"""exp(x) on its own, value by value: what a row's largest value would hide."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onexn_plugins.tvm_backend.kernels.choose import kernel_of
from onexn_plugins.tvm_backend.kernels.matrices import Softmax
from onexn_plugins.tvm_backend.kernels.request import Request, Stage
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from tests.tvm_backend.kernels.differential import UNITS, Case, compile_functions, run

_LEAST = 126 * np.log(2)  # exp of less than minus this is no normal float32 number


@pytest.mark.parametrize("unit", UNITS)
def test_every_value_is_as_exact_as_float32(unit: VectorUnit):
    normal = np.concatenate([[0], np.geomspace(1e-8, _LEAST - 0.5, 767)])
    tiny = np.concatenate([np.linspace(_LEAST + 0.5, 1e3, 253), [1e9, 3e38, np.inf]])
    below = np.concatenate([normal, tiny]).astype(np.float32)
    # Rows of zeros but for one value: their sum is known, so that softmax tells that value's exponential.
    x = np.zeros((len(below), 37), np.float32)
    x[np.arange(len(below)), np.arange(len(below)) % 37] = -below
    expected = torch.softmax(torch.from_numpy(x).double(), -1)
    kernel = kernel_of(Request((Stage(Softmax(x.shape)),), unit))
    function = compile_functions({"kernel": kernel.func.with_attr("global_symbol", "kernel")})["kernel"]
    actual = run(function, Case(kernel, [x], expected))
    # Half a unit in x's last place changes its exponential by a share that grows with x.
    allowed = (4e-7 + 2**-24 * normal[:, None]) * expected.numpy()[:len(normal)]
    assert (np.abs(actual - expected.numpy())[:len(normal)] <= allowed).all()
    found = actual[np.arange(len(below)), np.arange(len(below)) % 37]
    assert not found[len(normal):].any(), "those too small and infinity's are zero"
