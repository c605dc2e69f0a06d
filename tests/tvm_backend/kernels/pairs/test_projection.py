"""A convolution, a depthwise one and the 1×1 convolution after both in one kernel, against torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.common.requests import stage
from onexn_plugins.tvm_backend.kernels.pairs import geometry, written_in_place
from onexn_plugins.tvm_backend.kernels.pairs.written_in_place import why_not_written_in_place
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Tile
from tests.tvm_backend.kernels.differential import (
    ACTIVATIONS,
    AVX2,
    AVX512,
    ZEN4,
    check,
    densities,
    differential_settings,
    epilogues,
    pair,
)
from tests.tvm_backend.kernels.pairs.test_pairs import depthwise_after, fused_case

RELU6 = Epilogue(activation="relu6")


def projection_after(depthwise, channels):
    return Conv(depthwise.batch, depthwise.out_channels, depthwise.out_height, depthwise.out_width, channels)


def why_not(problem, depthwise, last, unit=AVX512, dw_epilogue=RELU6):
    """Why hidden rows are not written in place for the three of them."""
    def ones(conv):
        return np.ones(conv.weight_shape, np.float32), np.zeros(conv.out_channels, np.float32)

    return why_not_written_in_place(pair((problem, *ones(problem), RELU6), (depthwise, *ones(depthwise), dw_epilogue),
                                         unit, Tile(4, 2), stage(last, *ones(last), RELU6, Tile(4, 2))))


@pytest.fixture(autouse=True)
def small_images_too(monkeypatch):
    monkeypatch.setattr(geometry, "_LEAST_PROJECTED", 0)
    # Several bands, where many weights are kept as well.
    monkeypatch.setattr(written_in_place, "_PROJECTED_BUDGET", 6 * 1024)


@st.composite
def projected_cases(draw):
    """Hidden rows of whole vectors; stems where there are few input channels."""
    channels, activation = draw(st.integers(1, 20)), Epilogue(activation=draw(st.sampled_from(list(ACTIVATIONS))))
    batch, height, width = draw(st.integers(1, 2)), draw(st.integers(8, 30)), draw(st.sampled_from([16, 28, 32]))
    stem = draw(st.booleans())
    if stem:
        problem = Conv(batch, 3, 16 * draw(st.integers(1, 3)), 32, channels, (3, 3), (2, 2), (1, 1, 1, 1))
    else:
        problem = Conv(batch, draw(st.integers(1, 40)), height, width, channels)
    size, stride = (3, 1) if stem else (draw(st.sampled_from([3, 5])), draw(st.sampled_from([1, 2])))
    depthwise = depthwise_after(problem, size, stride)
    last = projection_after(depthwise, draw(st.integers(1, 20)))
    if not stem and why_not(problem, depthwise, last):  # small hidden images are read where they are
        depthwise = depthwise_after(problem := replace(problem, height=57, width=32, kernel=(1, 1), stride=(1, 1),
                                                       padding=(0, 0, 0, 0)), size, stride)
        last = projection_after(depthwise, last.out_channels)
    unit = replace(AVX512, threads=1 if stem else draw(st.sampled_from([1, 2, 3])))
    return fused_case(problem, depthwise, draw(st.integers(1, 20)), draw(densities), activation,
                      Epilogue(activation=activation.activation), unit, draw(st.integers(0, 999)),
                      (last, draw(st.integers(1, 20)), draw(epilogues)))


@differential_settings
@given(st.lists(projected_cases(), min_size=3, max_size=3))
def test_any_inverted_residual_equals_torch(cases):
    assert all(case.kernel.family.endswith("_depthwise_projection") for case in cases)
    check(cases)


def test_the_first_blocks_of_mobilenet():
    stem, wide, same = (Conv(1, 3, 224, 224, 32, (3, 3), (2, 2), (1, 1, 1, 1)), Conv(1, 16, 112, 112, 24),
                        Conv(1, 24, 56, 56, 36))
    cases = []
    for problem, stride, channels in ((stem, 1, 16), (wide, 2, 24), (same, 1, 24)):
        last = projection_after(depthwise := depthwise_after(problem, 3, stride), channels)
        cases.append(fused_case(problem, depthwise, 4, 0.5, RELU6, RELU6, AVX512,
                                projected=(last, 4, Epilogue(residual=problem is same))))
    assert [case.kernel.family for case in cases] == [
        "winograd_2x2_3x3_depthwise_projection", *["conv_1x1_depthwise_projection"] * 2]
    check(cases)


@pytest.mark.parametrize(("changes", "unit", "reason"), [
    ({}, AVX2, "measured on"),
    ({}, ZEN4, "measured on"),
    ({"kernel": (3, 3)}, AVX512, "is 1×1"),
    ({"groups": 2}, AVX512, "is 1×1"),
    ({"height": 27}, AVX512, "the projection takes"),
])
def test_what_is_not_computed_with_a_projection(changes, unit, reason):
    problem = Conv(1, 16, 56, 56, 24)
    last = projection_after(depthwise := depthwise_after(problem, 3, 2), 8)
    assert why_not(problem, depthwise, last) is None
    assert reason in why_not(problem, depthwise, replace(last, **changes), unit)
    assert "the projection takes" in why_not(problem, depthwise, last, dw_epilogue=Epilogue(residual=True))
    narrow = Conv(1, 16, 50, 18, 24)
    after = depthwise_after(narrow, 3, 1)
    assert "do not fill vectors" in why_not(narrow, after, projection_after(after, 8))


def test_small_images_stay_in_the_cache(monkeypatch):
    monkeypatch.undo()
    problem = Conv(1, 16, 56, 56, 24)
    depthwise = depthwise_after(problem, 3, 2)
    assert "stays in the cache" in why_not(problem, depthwise, projection_after(depthwise, 8))
