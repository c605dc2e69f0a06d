"""Pooling kernels against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from onexn_plugins.tvm_backend.kernels.problem import GlobalPool, Pool, Unsupported
from tests.tvm_backend.kernels.differential import (
    AVX2,
    AVX512,
    CASES_PER_MODULE,
    NEON,
    UNITS,
    Case,
    check,
    compile_functions,
    differential_settings,
    pooling,
    random_array,
    run,
    units,
)
from tests.tvm_backend.kernels.geometry import convolutions


@st.composite
def pool_cases(draw):
    channels = draw(st.integers(1, 3))
    conv = draw(convolutions(channels, channels, groups=channels, pooling=True))
    problem = Pool(draw(st.sampled_from(["max", "average"])), conv.batch, channels, conv.height, conv.width,
                   conv.kernel, conv.stride, conv.padding, conv.dilation, draw(st.booleans()))
    return pool_case(problem, draw(units), draw(st.integers(0, 999)))


def pool_case(problem, unit, seed=0, *special):
    """With some of these values in the input."""
    rng = np.random.default_rng(seed)
    x = random_array(problem.input_shape, rng)
    for place, value in enumerate(special):
        x[:, :, place % problem.height, -1 - place] = value
    return Case(pooling(problem, unit), [x], reference(problem, x))


def reference(problem, x):
    """By definition: the values under each tap as an extra dimension; padding is what does not count."""
    top, left, bottom, right = problem.padding
    conv = problem.as_conv

    def windows(tensor, filler):
        padded = F.pad(tensor, (left, right, top, bottom), value=filler)
        taps = [
            padded[:, :, ky * conv.dilation[0] :: conv.stride[0], kx * conv.dilation[1] :: conv.stride[1]]
            [:, :, : conv.out_height, : conv.out_width]
            for ky in range(conv.kernel[0]) for kx in range(conv.kernel[1])
        ]
        return torch.stack(taps)

    values = torch.from_numpy(x).double()
    if problem.kind == "max":
        return windows(values, -torch.inf).amax(0)
    counted = windows(torch.ones_like(values), 1.0 if problem.count_include_pad else 0.0)
    return windows(values, 0.0).sum(0) / counted.sum(0)


@differential_settings
@given(st.lists(pool_cases(), min_size=CASES_PER_MODULE, max_size=CASES_PER_MODULE))
def test_any_pooling_equals_its_definition(cases):
    check(cases)


def test_the_pools_of_real_networks():
    check([
        pool_case(problem, unit)
        for problem in (Pool("max", 1, 3, 112, 112, (3, 3), (2, 2), (1, 1, 1, 1)),
                        Pool("average", 2, 3, 14, 14, (2, 2), (2, 2)),
                        Pool("max", 1, 2, 13, 13, (3, 3), (2, 2), (0, 0, 1, 1)))
        for unit in (AVX512, AVX2)
    ])


def test_maxima_of_nan_are_nan():
    problems = [Pool("max", 1, 2, 5, 21, (3, 3), (2, 2), (1, 1, 1, 1)), Pool("max", 2, 1, 3, 3, (2, 2), (1, 1))]
    cases = [pool_case(problem, unit, 3, np.nan, np.inf, -np.inf) for problem in problems for unit in (AVX2, NEON)]
    named = {f"kernel_{index}": case for index, case in enumerate(cases)}
    module = compile_functions({name: case.kernel.func.with_attr("global_symbol", name)
                                for name, case in named.items()})
    for name, case in named.items():
        expected = case.expected.float().numpy()
        assert np.isnan(expected).any()
        assert not np.isnan(expected).all()
        np.testing.assert_array_equal(run(module[name], case), expected)


def test_global_average():
    cases = []
    for unit in UNITS:
        for height, width in [(7, 7), (1, 1), (3, 5), (16, 32), (9, 15)]:
            problem = GlobalPool(2, 5, height, width)
            x = random_array(problem.input_shape, np.random.default_rng(height))
            expected = torch.from_numpy(x).double().mean((2, 3), keepdim=True)
            cases.append(Case(pooling(problem, unit), [x], expected))
    check(cases)


def test_other_kinds_are_refused():
    with pytest.raises(Unsupported, match="median"):
        pooling(Pool("median", 1, 1, 4, 4, (2, 2)), AVX512)
