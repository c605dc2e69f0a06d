"""Kernels by Winograd's algorithm, for any tile, kernel and stride that it takes, against torch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.parts.window import band_start
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Tile, Unsupported
from onexn_plugins.tvm_backend.kernels.winograd.choice import best_outputs
from onexn_plugins.tvm_backend.kernels.winograd.filtering import filterings
from onexn_plugins.tvm_backend.kernels.winograd.kernel import winograd
from onexn_plugins.tvm_backend.kernels.winograd.layout import ProductLayout, layout_for
from tests.tvm_backend.kernels.differential import (
    AVX2,
    AVX512,
    NEON,
    ZEN4,
    check,
    conv,
    conv_case,
    densities,
    differential_settings,
    epilogues,
    family,
    random_weight,
    units,
)
from tests.tvm_backend.kernels.geometry import size_for

# (outputs of a tile per side, kernel, stride); the rest follows from the axes being independent.
ALGORITHMS = [
    (2, (3, 3), (1, 1)), (4, (3, 3), (1, 1)), (4, (7, 7), (2, 2)), (2, (3, 3), (2, 2)), (4, (2, 3), (2, 1)),
    (2, (4, 3), (3, 4)), (4, (1, 3), (1, 1)), (2, (7, 5), (2, 1)),
]


# Transforms to 7×7 points lose a digit to rounding: an error of 1.7e-5 was found for 7×7 taps.
ROUNDING = 5e-5


@st.composite
def winograd_cases(draw):
    outputs, kernel, stride = draw(st.sampled_from(ALGORITHMS))
    groups, padding = draw(st.sampled_from([1, 1, 2])), tuple(draw(st.integers(0, 3)) for _ in range(4))
    height, width = (
        size_for(draw(st.integers(1, 30)), kernel[axis], stride[axis], 1, padding[axis] + padding[axis + 2])
        + draw(st.integers(0, stride[axis] - 1)) for axis in range(2))
    problem = Conv(draw(st.integers(1, 2)), groups * draw(st.integers(1, 6)), height, width,
                   groups * draw(st.integers(1, 20)), kernel, stride, padding, groups=groups)
    block_size, density, seed = draw(st.integers(1, 9)), draw(densities), draw(st.integers(0, 999))
    build = family(winograd, outputs=outputs)
    return conv_case(build, problem, block_size, density, draw(epilogues), draw(units), seed)


@differential_settings
@given(st.lists(winograd_cases(), min_size=4, max_size=4))
def test_any_convolution_equals_torch(cases):
    check(cases, ROUNDING)


def test_layers_of_real_networks():
    layers = [
        (4, Conv(1, 64, 56, 56, 8, (3, 3), (1, 1), (1, 1, 1, 1)), AVX512),  # several bands
        (2, Conv(1, 64, 56, 56, 8, (3, 3), (1, 1), (1, 1, 1, 1)), NEON),
        (4, Conv(1, 32, 28, 28, 16, (3, 3), (1, 1), (1, 1, 1, 1)), AVX2),  # 49 tiles: 24, 24 and 4 lanes for one
        (4, Conv(1, 64, 56, 56, 20, (3, 3), (1, 1), (1, 1, 1, 1)), AVX2),
        (2, Conv(2, 64, 14, 14, 24, (3, 3), (1, 1), (1, 1, 1, 1), groups=2), AVX2),
        (4, Conv(1, 64, 14, 14, 16, (3, 3), (1, 1), (1, 1, 1, 1)), AVX512),
        (2, Conv(1, 512, 7, 7, 16, (3, 3), (1, 1), (1, 1, 1, 1)), AVX512),
        (4, Conv(1, 3, 112, 112, 16, (7, 7), (2, 2), (3, 3, 3, 3)), AVX512),
    ]
    relu = Epilogue(activation="relu")
    check([conv_case(family(winograd, outputs=outputs), problem, 4, 0.5, relu, unit)
           for outputs, problem, unit in layers])


@pytest.mark.parametrize(("kept", "unit", "outputs"), [
    (0.1, AVX512, None), (0.1, ZEN4, 4), (0.25, AVX512, 4), (1.0, AVX512, 4)])
def test_points_that_lie_far_apart_take_longer_to_write(kept, unit, outputs):
    assert best_outputs(Conv(1, 128, 28, 28, 128, (3, 3), padding=(1, 1, 1, 1)), kept, unit) == outputs


@pytest.mark.parametrize(("unit", "pixels", "by_points"), [
    (AVX2, 6, True), (AVX512, 6, False), (AVX512, 20, True), (ZEN4, 20, False), (NEON, 20, False)])
def test_sums_go_point_by_point_where_enough_tiles_share_a_weight(unit, pixels, by_points):
    layout = layout_for(Conv(1, 8, pixels, pixels, 8, (3, 3)), 2, unit)
    assert isinstance(layout, ProductLayout) == by_points


@pytest.mark.parametrize(("problem", "bands"), [
    (Conv(1, 3, 224, 224, 64, (7, 7), (2, 2), (3, 3, 3, 3)), 14),  # few weights: 56 tiles and their sums
    (Conv(1, 128, 28, 28, 128, (3, 3), padding=(1, 1, 1, 1)), 1),  # more weights than input
])
def test_bands_are_low_where_weights_are_few(problem, bands):
    assert band_start(layout_for(problem, 4, AVX2).window, 0)[0] == bands


def test_points_do_not_overlap():
    """Every value of every point has a place of its own in scratch, for both layouts, strided or not."""
    for unit, stride in [(AVX2, (1, 1)), (AVX512, (1, 1)), (AVX2, (2, 1)), (AVX2, (2, 2)), (AVX512, (2, 2))]:
        layout = layout_for(Conv(1, 3, 30, 30, 8, (3, 3), stride), 2, unit)
        places = [layout.point(vector * unit.lanes, channel, rows, row, place) + lane
                  for vector in range(layout.vectors) for channel in range(3) for rows in layout.rows
                  for row in range(rows.first, rows.last) for place in range(len(rows.places))
                  for lane in range(unit.lanes)]
        assert len(set(places)) == len(places)
        assert min(places) == 0
        assert max(places) < layout.size


@pytest.mark.parametrize(("outputs", "kernel", "stride"), ALGORITHMS)
def test_filterings_add_up_to_the_strided_filter(outputs, kernel, stride):
    rng = np.random.default_rng(0)
    for taps, step in zip(kernel, stride, strict=True):
        weight, signal = rng.standard_normal(taps), rng.standard_normal((outputs - 1) * step + taps)
        expected = [signal[start * step:start * step + taps] @ weight for start in range(outputs)]
        products = np.zeros(outputs + -(-taps // step) - 1)
        for first, part in enumerate(phases := filterings(outputs, taps, step)):
            values = signal[first::step][:part.points]
            products[:part.points] += (part.input @ values) * (part.weight @ weight[first::step])
        np.testing.assert_allclose(phases[0].output @ products, expected, rtol=1e-9, atol=1e-9)


def test_it_is_taken_where_it_pays():
    def name(channels, side, kept, unit=AVX512, inputs=None, **changes):
        inputs = inputs or channels
        problem = Conv(1, inputs, side, side, channels, **{"kernel": (3, 3), "padding": (1, 1, 1, 1)} | changes)
        weight = random_weight(problem, 4, kept, np.random.default_rng(0))
        bias = np.zeros(channels, np.float32)
        return conv(problem, weight, bias, Epilogue(), unit).family

    assert name(64, 28, 1.0) == name(64, 28, 0.5) == name(128, 14, 0.3) == "winograd_4x4_3x3"
    assert name(256, 7, 1.0) == name(64, 28, 1.0, NEON) == "winograd_2x2_3x3"
    assert name(64, 28, 0.05) == name(8, 28, 1.0) == "conv_3x3"
    assert name(64, 28, 1.0, stride=(2, 2)) == name(64, 28, 1.0, dilation=(2, 2)) == "conv_3x3"
    # by instruction counts
    assert name(256, 14, 0.1, NEON) == name(128, 28, 0.1, NEON) == "winograd_2x2_3x3"
    assert name(16, 32, 0.25, NEON) == name(32, 16, 0.1, NEON) == "conv_3x3"
    stem = {"inputs": 3, "kernel": (7, 7), "stride": (2, 2), "padding": (3, 3, 3, 3)}
    assert name(64, 112, 1.0, **stem) == "winograd_4x4_7x7"
    assert name(64, 112, 1.0, NEON, **stem) == "conv_7x7"


@pytest.mark.parametrize(("kernel", "stride", "outputs", "method"), [
    ((3, 3), (1, 1), 4, "F(4×4, 3×3)"),
    ((3, 3), (1, 1), 2, "F(2×2, 3×3)"),
    ((7, 7), (2, 2), 4, "F(4×4, 7×7), the sum of 4 phases for stride 2×2"),
    ((3, 5), (1, 2), 2, "F(2×2, 3×5), the sum of 2 phases for stride 1×2"),
])
def test_it_names_its_tiles(kernel, stride, outputs, method):
    problem = Conv(1, 4, 20, 20, 4, kernel, stride)
    weight, bias = np.ones(problem.weight_shape, np.float32), np.zeros(4, np.float32)
    found = family(winograd, outputs=outputs)(problem, weight, bias, Epilogue(), AVX512, Tile(4, 1))
    assert found.method == f"by Winograd's algorithm, {method}"


@pytest.mark.parametrize("problem", [
    Conv(1, 4, 9, 9, 4, (3, 3), dilation=(2, 2)),
    Conv(1, 4, 9, 9, 4, (9, 3)),
])
def test_what_it_cannot_compute_is_refused(problem):
    weight, bias = np.ones(problem.weight_shape, np.float32), np.zeros(4, np.float32)
    with pytest.raises(Unsupported, match="Winograd"):
        family(winograd)(problem, weight, bias, Epilogue(), AVX512, Tile(4, 1))
