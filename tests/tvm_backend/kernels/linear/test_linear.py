"""Fully connected kernels against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.choose import dense_block
from onexn_plugins.tvm_backend.kernels.parts.tiling import default_tile
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Linear, Unsupported
from tests.tvm_backend.kernels.differential import (
    AVX2,
    AVX512,
    CASES_PER_MODULE,
    NEON,
    SSE,
    Case,
    check,
    conv,
    convolve,
    densities,
    differential_settings,
    epilogues,
    finish,
    linear,
    random_array,
    random_weight,
    units,
)


@st.composite
def linear_cases(draw):
    problem = Linear(draw(st.sampled_from([1, 1, 2, 5, 19, 70])), draw(st.integers(1, 70)), draw(st.integers(1, 70)))
    block_size, density = draw(st.integers(1, 32)), draw(densities)
    return linear_case(problem, block_size, density, draw(epilogues), draw(units), draw(st.integers(0, 999)))


def linear_case(problem, block_size, density, epilogue, unit, seed=0):
    rng = np.random.default_rng(seed)
    x, bias = random_array(problem.input_shape, rng), random_array((problem.out_features,), rng)
    weight = random_weight(problem, block_size, density, rng)
    residual = [random_array(problem.output_shape, rng)] if epilogue.residual else []
    kernel = linear(problem, weight, bias, epilogue, unit, default_tile(problem, block_size, unit))
    product = torch.from_numpy(x).double() @ torch.from_numpy(weight).double().T + torch.from_numpy(bias)
    return Case(kernel, [x, *residual], finish(product, epilogue, residual))


@differential_settings
@given(st.lists(linear_cases(), min_size=CASES_PER_MODULE, max_size=CASES_PER_MODULE))
def test_any_linear_layer_equals_torch(cases):
    check(cases)


def test_classifiers():
    check([
        linear_case(Linear(batch, 512, 1000), block_size, density, Epilogue(), unit)
        for unit in (AVX512, SSE, NEON) for batch, block_size, density in [(1, 16, 1.0), (1, 4, 0.25), (3, 8, 0.5)]
    ])


def test_many_rows_fill_the_vectors_of_a_sparse_layer():
    cases = [linear_case(Linear(batch, features, 40), block_size, 0.4, Epilogue(residual, activation), unit)
             for unit in (AVX512, SSE, NEON)
             for batch, features, block_size, residual, activation in [
                 (16, 24, 4, False, None), (50, 7, 4, True, "relu"), (37, 12, 6, False, "silu"),
                 (131, 9, 2, True, None), (19, 10, 6, True, "gelu"),
             ]]
    assert {case.kernel.family for case in cases} == {"linear_rows"}
    check(cases)


def test_a_pointwise_convolution_of_one_pixel():
    rng, problem = np.random.default_rng(0), Conv(2, 40, 1, 1, 24)
    x, bias = random_array(problem.input_shape, rng), random_array((24,), rng)
    weight = random_weight(problem, 4, 0.5, rng)
    epilogue = Epilogue(activation="sigmoid")
    kernel = conv(problem, weight, bias, epilogue, AVX512)
    check([Case(kernel, [x], finish(convolve(problem, x, weight, bias), epilogue, []))])


def test_arrays_of_another_shape_are_refused():
    with pytest.raises(Unsupported, match="belong"):
        linear(Linear(1, 8, 4), np.ones((8, 4), np.float32), np.ones(4, np.float32), Epilogue(), AVX512)


def test_avx2_fills_its_registers():
    tiles = {size: default_tile(Conv(1, 64, 14, 14, 64), size, AVX2).vectors for size in (2, 4, 6, 8, 16)}
    assert tiles == {2: 5, 4: 3, 6: 2, 8: 3, 16: 3}


def test_on_avx2_many_rows_fill_the_vectors_of_a_dense_layer_too():
    many, one = Linear(49, 64, 64), Linear(1, 64, 64)
    assert (dense_block(many, AVX2), dense_block(one, AVX2), dense_block(many, AVX512)) == (4, 16, 16)
    weight, bias = np.ones((64, 64), np.float32), np.zeros(64, np.float32)
    families = [linear(problem, weight, bias, Epilogue(), unit).family
                for problem, unit in ((many, AVX2), (one, AVX2), (many, AVX512))]
    assert families == ["linear_rows", "linear", "linear"]
