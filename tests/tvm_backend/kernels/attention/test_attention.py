"""Products of activations, softmax, layer norms and transposes against torch in float64, on every unit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from onexn_plugins.tvm_backend.kernels.attention.products import panels_for
from onexn_plugins.tvm_backend.kernels.attention.transpose import Axis, axes_of
from onexn_plugins.tvm_backend.kernels.choose import kernel_of
from onexn_plugins.tvm_backend.kernels.matrices import InstanceNorm, LayerNorm, MatMul, Matrices, Softmax, Transpose
from onexn_plugins.tvm_backend.kernels.problem import Epilogue
from onexn_plugins.tvm_backend.kernels.request import Request, Stage
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from tests.tvm_backend.kernels.differential import (
    ACTIVATIONS,
    AVX2,
    AVX512,
    CASES_PER_MODULE,
    NEON,
    SSE,
    UNITS,
    Case,
    check,
    compile_functions,
    differential_settings,
    random_array,
    run,
    units,
)

seeds = st.integers(0, 2**32 - 1)


def laid_out(shape: tuple[int, ...], rng: np.random.Generator, factors: tuple[float, ...] = ()) -> tuple[
        np.ndarray, Matrices, Tensor]:
    """A tensor whose axes lie in a random order, with a step along one of them: (tensor, matrices, what they hold)."""
    order = rng.permutation(len(shape)).tolist()
    whole = torch.from_numpy(random_array(tuple(shape[axis] + 1 for axis in order), rng))
    cut = whole[tuple(slice(0, shape[axis]) for axis in order)]
    cut = cut.permute([order.index(axis) for axis in range(len(shape))])
    matrices = Matrices(tuple(whole.shape), tuple(cut.stride()), cut.storage_offset(), factors)
    return whole.numpy(), matrices, cut.double() * math.prod(factors)


def dense(shape: tuple[int, ...], factors: tuple[float, ...] = ()) -> Matrices:
    return Matrices(shape, torch.empty(shape, device="meta").stride(), 0, factors)


def matmul_case(batch: tuple[int, ...], rows: int, inner: int, columns: int, unit: VectorUnit, seed: int,
                factors: tuple[float, ...] = ()) -> Case:
    rng = np.random.default_rng(seed)
    x, left, first = laid_out((*batch, rows, inner), rng, factors)
    other, right, second = laid_out((*batch, inner, columns), rng, factors)
    result = dense((*batch, rows, columns), factors)
    kernel = kernel_of(Request((Stage(MatMul(batch, rows, inner, columns, left, right, result)),), unit))
    return Case(kernel, [x, other], first @ second * math.prod(factors))


def attention_case(batch: tuple[int, ...], queries: int, keys: int, inner: int, columns: int, unit: VectorUnit,
                   seed: int, factors: tuple[float, ...] = ()) -> Case:
    """The result's heads lie beside its columns, as transformers' blocks want them."""
    rng = np.random.default_rng(seed)
    x, left, first = laid_out((*batch, queries, inner), rng, factors)
    other, right, second = laid_out((*batch, inner, keys), rng)
    third, values, mixed = laid_out((*batch, keys, columns), rng)
    turned = torch.empty((queries, *batch, columns), device="meta")
    strides = turned.permute([*range(1, len(batch) + 1), 0, len(batch) + 1]).stride()
    scores = MatMul(batch, queries, inner, keys, left, right, dense((*batch, queries, keys), factors))
    mixing = MatMul(batch, queries, keys, columns, dense((*batch, queries, keys)), values,
                    Matrices(tuple(turned.shape), tuple(strides)))
    kernel = kernel_of(Request((Stage(scores), Stage(Softmax((*batch, queries, keys))), Stage(mixing)), unit))
    expected = (first @ second * math.prod(factors)).softmax(-1) @ mixed
    return Case(kernel, [x, other, third], expected.permute([len(batch), *range(len(batch)), len(batch) + 1]))


@st.composite
def matmuls(draw) -> Case:
    batch = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    rows, inner, columns = (draw(st.sampled_from([1, 2, 3, 5, 8, 13, 16, 17, 24, 33])) for _ in range(3))
    factors = draw(st.sampled_from([(), (0.5,), (0.3, -1.7)]))
    return matmul_case(batch, rows, inner, columns, draw(units), draw(seeds), factors)


@given(st.lists(matmuls(), min_size=CASES_PER_MODULE, max_size=CASES_PER_MODULE))
@differential_settings
def test_products(cases):
    check(cases)


@st.composite
def attentions(draw) -> Case:
    batch = tuple(draw(st.lists(st.integers(1, 2), max_size=2)))
    queries, keys, inner, columns = (draw(st.sampled_from([1, 3, 7, 8, 16, 20, 25, 49])) for _ in range(4))
    factors = draw(st.sampled_from([(), (0.5,)]))
    return attention_case(batch, queries, keys, inner, columns, draw(units), draw(seeds), factors)


@given(st.lists(attentions(), min_size=4, max_size=4))
@differential_settings
def test_attention(cases):
    check(cases)


@st.composite
def softmaxes(draw) -> Case:
    shape = (draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 3, 7, 8, 15, 31, 64, 100])))
    x = random_array(shape, np.random.default_rng(draw(seeds))) * draw(st.sampled_from([1, 30, 1e30]))
    kernel = kernel_of(Request((Stage(Softmax(shape)),), draw(units)))
    return Case(kernel, [x], torch.from_numpy(x).double().softmax(-1))


@st.composite
def layer_norms(draw) -> Case:
    shape, axis = (draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 5, 8, 17, 64]))), draw(
        st.sampled_from([-1, -2]))
    rng = np.random.default_rng(draw(seeds))
    x = random_array(shape, rng) * np.float32(draw(st.sampled_from([1, 100]))) + np.float32(3)
    problem = LayerNorm(shape, axis, 1e-5)
    scale, shift = (random_array((problem.row_size,), rng) for _ in range(2))
    shift = draw(st.sampled_from([shift, None]))
    kernel = kernel_of(Request((Stage(problem, scale=scale, shift=shift),), draw(units)))
    row = shape[axis:]
    expected = F.layer_norm(torch.from_numpy(x).double(), row, torch.from_numpy(scale).double().reshape(row),
                            None if shift is None else torch.from_numpy(shift).double().reshape(row))
    return Case(kernel, [x], expected)


@st.composite
def instance_norms(draw) -> Case:
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(
        st.sampled_from([1, 5, 16, 77])))
    rng = np.random.default_rng(draw(seeds))
    x = random_array(shape, rng) * np.float32(draw(st.sampled_from([1, 100]))) + np.float32(3)
    scale, shift = (random_array(shape[1:2], rng) for _ in range(2))
    activation, residual = draw(st.sampled_from(["relu", None])), draw(st.booleans())
    epilogue = Epilogue(residual, activation, in_place=residual and draw(st.booleans()))
    stage = Stage(InstanceNorm(shape), epilogue=epilogue, scale=scale, shift=shift)
    kernel = kernel_of(Request((stage,), draw(units)))
    # torch refuses rows of one value, whose variance is zero.
    double = torch.from_numpy(x).double().flatten(2)
    expected = (double - double.mean(2, keepdim=True)) / (double.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = (expected * torch.from_numpy(scale).double()[:, None] + torch.from_numpy(shift)[:, None]).reshape(shape)
    other = random_array(shape, rng)
    expected = expected + torch.from_numpy(other) if residual else expected
    return Case(kernel, [x, other] if residual else [x], ACTIVATIONS[activation](expected))


@given(st.lists(st.one_of(softmaxes(), layer_norms()), min_size=CASES_PER_MODULE, max_size=CASES_PER_MODULE))
@differential_settings
def test_rows(cases):
    check(cases, 3e-5)  # of a layer norm's rows with little variance beside their mean


@given(st.lists(instance_norms(), min_size=CASES_PER_MODULE, max_size=CASES_PER_MODULE))
@differential_settings
def test_instance_norms(cases):
    check(cases, 3e-5)


@st.composite
def transposes(draw) -> Case:
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 5, 8, 17, 20]), min_size=2, max_size=4)))
    order = tuple(draw(st.permutations(range(len(shape)))))
    x = random_array(shape, np.random.default_rng(0))
    kernel = kernel_of(Request((Stage(Transpose(shape, order)),), draw(units)))
    return Case(kernel, [x], torch.from_numpy(x).permute(order).contiguous())


@given(st.lists(transposes(), min_size=CASES_PER_MODULE, max_size=CASES_PER_MODULE))
@differential_settings
def test_transposes(cases):
    check(cases, 0)


@pytest.mark.parametrize("unit", [AVX512, AVX2, SSE, NEON], ids=lambda unit: unit.isa.name)
def test_softmax_of_what_is_not_finite(unit):
    """As defined: NaN and plus infinity make a row NaN, minus infinity is a 0 beside finite values."""
    x = random_array((6, 21), np.random.default_rng(0))
    x[0, 3], x[1, 20], x[2, 5], x[3, :], x[4, :10] = np.nan, np.nan, np.inf, -np.inf, -np.inf
    kernel = kernel_of(Request((Stage(Softmax(x.shape)),), unit))
    with np.errstate(all="ignore"):
        powers = np.exp(x - x.max(-1, keepdims=True))
        expected = powers / powers.sum(-1, keepdims=True)
    functions = compile_functions({"softmax": kernel.func.with_attr("global_symbol", "softmax")})
    actual = run(functions["softmax"], Case(kernel, [x], torch.from_numpy(expected)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)
    assert (actual[4, :10] == 0).all()


def test_axes_that_stay_neighbours_are_one():
    assert axes_of((2, 3, 4, 5), (0, 1, 2, 3)) == [Axis(120, 1, 1)]
    assert axes_of((2, 3, 4, 5), (2, 3, 0, 1)) == [Axis(20, 1, 6), Axis(6, 20, 1)]
    assert axes_of((2, 1, 4, 5), (0, 2, 1, 3)) == [Axis(40, 1, 1)]
    assert axes_of((1, 1), (1, 0)) == [Axis(1, 1, 1)]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.isa.name)
def test_panels_cover_all_columns_in_registers(unit):
    for columns in range(1, 70):
        panels = panels_for(64, columns, unit)
        covered = {panels.first(panel) if isinstance(panels.first(panel), int) else min(
            panel * panels.width, columns - panels.width) for panel in range(panels.count)}
        assert {start + place for start in covered for place in range(panels.width)} == set(range(columns))
        assert (panels.rows + 1) * len(panels.widths) + 1 <= unit.registers
