"""Convolution, activation and depthwise convolution in one kernel, against torch."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.common.requests import stage
from onexn_plugins.tvm_backend.kernels.channelwise.unpadded import Strips
from onexn_plugins.tvm_backend.kernels.choose import kernel_of
from onexn_plugins.tvm_backend.kernels.pairs.geometry import why_not_in_place
from onexn_plugins.tvm_backend.kernels.pairs.laid_out import why_not_laid_out
from onexn_plugins.tvm_backend.kernels.parts.tiling import default_tile
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Tile, Unsupported
from tests.tvm_backend.kernels.differential import (
    ACTIVATIONS,
    AVX2,
    AVX512,
    CASES_PER_MODULE,
    NEON,
    NEON_V7,
    SSE,
    ZEN4,
    Case,
    check,
    compile_functions,
    convolve,
    densities,
    differential_settings,
    epilogues,
    finish,
    pair,
    random_array,
    random_weight,
    run,
    units,
)
from tests.tvm_backend.kernels.geometry import convolutions


@st.composite
def fused_cases(draw):
    channels = draw(st.integers(1, 20))
    if draw(st.booleans()):
        problem = draw(convolutions(draw(st.integers(1, 6)), channels))
    else:
        side = st.integers(1, 20)
        problem = Conv(draw(st.integers(1, 2)), draw(st.integers(1, 16)), draw(side), draw(side), channels)
    size, stride = draw(st.sampled_from([3, 5])), draw(st.sampled_from([1, 2]))
    depthwise = depthwise_after(problem, size, stride)
    block_size, density = draw(st.integers(1, 20)), draw(densities)
    activation = draw(st.sampled_from(list(ACTIVATIONS)))
    return fused_case(problem, depthwise, block_size, density, Epilogue(activation=activation), draw(epilogues),
                      draw(units), draw(st.integers(0, 999)))


def depthwise_after(problem, size, stride):
    channels, padding = problem.out_channels, (size // 2,) * 4
    return Conv(problem.batch, channels, problem.out_height, problem.out_width, channels, (size, size),
                (stride, stride), padding, groups=channels)


def fused_case(problem, depthwise, block_size, density, epilogue, dw_epilogue, unit, seed=0, projected=None):
    """`projected`: the problem of the 1×1 convolution after them, its block size and its epilogue."""
    rng = np.random.default_rng(seed)
    x, bias = random_array(problem.input_shape, rng), random_array((problem.out_channels,), rng)
    weight = random_weight(problem, block_size, density, rng)
    dw_weight, dw_bias = random_array(depthwise.weight_shape, rng), random_array((problem.out_channels,), rng)
    build = partial(pair, (problem, weight, bias, epilogue), (depthwise, dw_weight, dw_bias, dw_epilogue), unit,
                    default_tile(problem, block_size, unit))
    hidden = finish(convolve(problem, x, weight, bias), epilogue, [])
    between = convolve(depthwise, hidden, dw_weight, dw_bias)
    if projected is None:
        residual = [random_array(depthwise.output_shape, rng)] if dw_epilogue.residual else []
        return Case(kernel_of(build()), [x, *residual], finish(between, dw_epilogue, residual))
    last, size, last_epilogue = projected
    arrays = random_weight(last, size, density, rng), random_array((last.out_channels,), rng)
    residual = [random_array(last.output_shape, rng)] if last_epilogue.residual else []
    expected = finish(convolve(last, finish(between, dw_epilogue, []), *arrays), last_epilogue, residual)
    request = build(stage(last, *arrays, last_epilogue, default_tile(last, size, unit)))
    return Case(kernel_of(request), [x, *residual], expected)


@differential_settings
@given(st.lists(fused_cases(), min_size=CASES_PER_MODULE, max_size=CASES_PER_MODULE))
def test_any_fused_pair_equals_torch(cases):
    check(cases)


def test_pairs_of_mobilenet():
    check([
        fused_case(problem, depthwise_after(problem, 3, stride), 4, 0.5, Epilogue(activation="relu6"),
                   Epilogue(activation="relu6"), unit)
        for unit in (AVX512, NEON)
        for problem, stride in [(Conv(1, 3, 64, 64, 8, (3, 3), (2, 2), (1, 1, 1, 1)), 1),
                                (Conv(1, 8, 112, 112, 12), 2), (Conv(1, 24, 14, 14, 24), 1), (Conv(1, 24, 7, 7, 24), 1)]
    ])


def test_rows_that_fill_vectors_are_written_where_the_depthwise_convolution_reads():
    pairs = [(Conv(2, 6, 50, 16, 8, groups=2), 5, 2), (Conv(1, 5, 25, 32, 5), 3, 1), (Conv(1, 4, 51, 16, 6), 5, 1)]
    cases = []
    for problem, size, stride in pairs:
        depthwise = depthwise_after(problem, size, stride)
        assert why_not_in_place(depthwise, AVX512) is None
        cases.append(fused_case(problem, depthwise, 4, 0.5, Epilogue(activation="silu"), Epilogue(True), AVX512))
    assert {case.kernel.family for case in cases} == {"conv_1x1_depthwise"}
    check(cases)


def test_pairs_of_vectors_on_arm():
    """28 pixels are three pairs of vectors and one alone, 20 two and one; block rows of more than 8 come two a turn."""
    problems = [(Conv(1, 9, 28, 28, 8), 2), (Conv(1, 33, 20, 20, 9), 2), (Conv(1, 25, 12, 28, 8), 1)]
    cases = []
    for unit in (NEON, NEON_V7):
        for block_size, (problem, stride) in zip((8, 4, 4), problems, strict=True):
            depthwise = depthwise_after(problem, 3, stride)
            assert why_not_in_place(depthwise, unit) is None
            cases.append(fused_case(problem, depthwise, block_size, 0.6, Epilogue(activation="relu6"),
                                    Epilogue(True, "relu6"), unit))
    check(cases)


def test_pairs_with_few_weights_come_in_bands():
    """What is summed for a band of rows stays in the first cache; with many weights the rows bands share cost more."""
    def sums(inputs):
        problem = Conv(1, inputs, 60, 64, 8)
        return fused_case(problem, depthwise_after(problem, 3, 2), 4, 1.0, Epilogue(), Epilogue(True), AVX512)

    few, many = sums(4), sums(40)
    assert scratch_bytes(few.kernel) <= 20 * 1024 < scratch_bytes(many.kernel)
    check([few, many])


@pytest.mark.parametrize("padding", [(1, 1, 1, 1), (0, 0, 1, 1)])
def test_pixels_are_laid_out_where_a_stride_would_split_vectors(padding):
    """Groups, a last block row of fewer channels, images of a batch, and heights with and without equal bands."""
    cases = []
    for problem in (Conv(2, 48, 38, 48, 12, groups=2), Conv(1, 24, 58, 56, 9), Conv(1, 16, 112, 112, 6)):
        channels = problem.out_channels
        depthwise = Conv(problem.batch, channels, problem.height, problem.width, channels, (3, 3), (2, 2), padding,
                         groups=channels)
        for density in (1.0, 0.9):
            case = fused_case(problem, depthwise, 4, density, Epilogue(activation="relu6"), Epilogue(True, "relu"),
                              AVX2)
            assert case.kernel.family == "conv_1x1_depthwise_laid"
            cases.append(case)
    check(cases)


@pytest.mark.parametrize(("side", "inputs", "size", "stride", "density", "unit", "laid_out"), [
    (56, 24, 3, 2, 1.0, AVX2, True), (56, 24, 3, 2, 0.25, AVX2, False), (56, 48, 3, 2, 0.25, AVX2, True),
    (112, 16, 3, 2, 0.25, AVX2, True), (56, 24, 5, 2, 1.0, AVX2, False), (56, 24, 3, 1, 1.0, AVX2, False),
    (56, 24, 3, 2, 1.0, AVX512, False), (56, 24, 3, 2, 1.0, SSE, False)])
def test_pixels_are_laid_out_where_that_was_measured_to_be_faster(side, inputs, size, stride, density, unit, laid_out):
    problem, rng = Conv(1, inputs, side, side, 8), np.random.default_rng(0)
    weight, bias = random_weight(problem, 4, density, rng), np.zeros(8, np.float32)
    after = depthwise_after(problem, size, stride)
    request = pair((problem, weight, bias, Epilogue()), (after, np.ones(after.weight_shape, np.float32), bias), unit,
                   Tile(4, 3))
    assert (why_not_laid_out(request) is None) == laid_out


def test_hidden_channels_are_read_some_time_after_they_were_written():
    """Small ones come many at a time: 11 block rows of 7×7 pixels are more than that, 50 channels end within a row."""
    problem = Conv(2, 12, 7, 7, 100, groups=2)
    depthwise = depthwise_after(problem, 5, 1)
    cases = []
    for unit in (AVX512, AVX2):
        for size in (4, 9):
            case = fused_case(problem, depthwise, size, 0.5, Epilogue(activation="relu6"), Epilogue(True), unit)
            assert case.kernel.family == "conv_1x1_depthwise_flat"
            assert scratch_bytes(case.kernel) >= 4 * 64 * unit.lanes, "64 vectors are stored before the first is read"
            cases.append(case)
    check(cases)


@pytest.mark.parametrize(("side", "density", "unit", "copied"), [
    (14, 1.0, AVX512, True), (14, 0.1, AVX512, False), (16, 1.0, AVX512, False), (14, 1.0, ZEN4, False)])
def test_pixels_that_cross_cache_lines_are_copied_where_they_are_used_often(side, density, unit, copied):
    problem = Conv(1, 12, side, side, 64)
    case = fused_case(problem, depthwise_after(problem, 3, 1), 4, density, Epilogue(), Epilogue(), unit)
    assert (12 * 13 * unit.lanes in scratch(case.kernel)) == copied


@pytest.mark.parametrize(("unit", "stride", "lanes"), [(AVX512, 1, 16), (AVX512, 2, 8), (ZEN4, 1, 8), (AVX2, 1, 8)])
def test_unpadded_rows_are_summed_in_whole_registers_where_these_are_not_halved(unit, stride, lanes):
    assert Strips(depthwise_after(Conv(1, 4, 32, 32, 4), 3, stride), unit).lanes == lanes


def scratch(kernel):
    """The values of each buffer that the kernel allocates."""
    return list(map(int, re.findall(r"T.alloc_buffer\(\((\d+),\)", kernel.func.script())))


def scratch_bytes(kernel):
    """Of the largest buffer that the kernel allocates."""
    return 4 * max(scratch(kernel))


def test_pixels_left_over_in_rows_of_every_other_one():
    """16 channels at once leave 28 pixels as a vector, a shorter one and single pixels."""
    depthwise = depthwise_after(problem := Conv(1, 4, 29, 28, 16), 3, 2)
    assert why_not_in_place(depthwise, AVX512) is None
    check([fused_case(problem, depthwise, 16, 0.5, Epilogue(activation="relu6"), Epilogue(), AVX512)])


@pytest.mark.parametrize("unit", [AVX512, AVX2, SSE])
def test_narrow_images_are_read_unpadded(unit):
    """Rows of a few lanes, of one vector and of several; the neighbouring row is a lane away."""
    cases = []
    for problem, kernel, stride, padding in [
        (Conv(1, 12, 14, 14, 9), (3, 3), (1, 1), (1, 1, 1, 1)), (Conv(1, 5, 14, 14, 5), (5, 5), (2, 2), (2, 2, 2, 2)),
        (Conv(2, 12, 7, 7, 20), (5, 5), (1, 1), (2, 2, 2, 2)), (Conv(1, 9, 28, 28, 5), (3, 3), (2, 2), (0, 0, 1, 1)),
        (Conv(1, 6, 5, 3, 8, groups=2), (3, 5), (1, 1), (0, 4, 2, 0)), (Conv(1, 4, 9, 2, 4), (3, 3), (1, 1), (1,) * 4),
        (Conv(1, 4, 1, 5, 4), (1, 3), (1, 1), (0, 1, 0, 1)), (Conv(1, 4, 7, 11, 4), (2, 3), (3, 2), (1, 2, 0, 1)),
        (Conv(1, 4, 40, 19, 4), (3, 3), (1, 1), (3, 3, 3, 3)), (Conv(1, 4, 6, 13, 4), (3, 1), (2, 2), (1, 0, 1, 0)),
    ]:
        channels = problem.out_channels
        depthwise = Conv(problem.batch, channels, problem.height, problem.width, channels, kernel, stride, padding,
                         (1, 1), channels)
        cases.append(fused_case(problem, depthwise, 4, 0.5, Epilogue(activation="relu"), Epilogue(True, "hardswish"),
                                unit))
    assert {case.kernel.family for case in cases} == {"conv_1x1_depthwise_flat"}
    check(cases)


@pytest.mark.parametrize("stride", [1, 2])
def test_infinities_stay_in_their_row(stride):
    """The last pixel of a row is infinite: so is what reads it, but not the next row's first pixel beside it."""
    problem = Conv(1, 1, 6, 14, 1)
    depthwise = Conv(1, 1, 6, 14, 1, (1, 3), (1, stride), (0, 1, 0, 1))
    x, one, zero = np.ones(problem.input_shape, np.float32), np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)
    x[0, 0, 2, 13] = np.inf
    taps = np.ones(depthwise.weight_shape, np.float32)
    kernel = kernel_of(pair((problem, one, zero, Epilogue()), (depthwise, taps, zero), AVX512))
    assert kernel.family == "conv_1x1_depthwise_flat"
    expected = convolve(depthwise, x, taps, zero)
    actual = run(compile_functions({"kernel": kernel.func.with_attr("global_symbol", "kernel")})["kernel"],
                 Case(kernel, [x], expected))
    np.testing.assert_array_equal(actual, expected)


def test_what_cannot_be_fused_is_refused():
    problem = Conv(1, 4, 8, 8, 4)
    weight, dw_weight = np.ones((4, 4, 1, 1), np.float32), np.ones((4, 1, 3, 3), np.float32)
    bias = np.zeros(4, np.float32)

    def fuse(epilogue, depthwise):
        return kernel_of(pair((problem, weight, bias, epilogue), (depthwise, dw_weight, bias), AVX512))

    with pytest.raises(Unsupported, match="residual"):
        fuse(Epilogue(residual=True), depthwise_after(problem, 3, 1))
    with pytest.raises(Unsupported, match="gives"):
        fuse(Epilogue(), Conv(1, 4, 9, 9, 4, (3, 3), groups=4))
