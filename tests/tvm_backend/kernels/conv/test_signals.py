"""Convolutions of one row (Conv1d) against torch: cut into bands along it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.conv.sliced import sliced
from onexn_plugins.tvm_backend.kernels.conv.spatial import spatial
from onexn_plugins.tvm_backend.kernels.parts.bands import upright
from onexn_plugins.tvm_backend.kernels.parts.window import window_for
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue
from tests.tvm_backend.kernels.differential import (
    AVX2,
    NEON,
    ZEN4,
    check,
    conv,
    conv_case,
    densities,
    differential_settings,
    epilogues,
    family,
    units,
)
from tests.tvm_backend.kernels.geometry import signals


@st.composite
def signal_cases(draw):
    groups = draw(st.sampled_from([1, 1, 2]))
    problem = draw(signals(groups * draw(st.integers(1, 6)), groups * draw(st.integers(1, 20)), groups))
    kind = draw(st.sampled_from([conv, family(spatial), family(sliced, slices=2)]))
    return conv_case(kind, problem, draw(st.integers(1, 20)), draw(densities), draw(epilogues), draw(units),
                     draw(st.integers(0, 999)))


@settings(differential_settings, max_examples=2)  # each is six kernels
@given(st.lists(signal_cases(), min_size=6, max_size=6))
def test_any_signal_equals_torch(cases):
    check(cases)


def test_long_signals_are_cut_into_bands():
    problem = Conv(1, 60, 1, 9001, 4, (1, 3), padding=(0, 4, 0, 0), dilation=(1, 2), stride=(1, 2))
    column = upright(problem)
    assert window_for(column, 60, ZEN4.second_cache // 2).rows < column.out_height
    check([conv_case(family(spatial), problem, 4, 0.25, Epilogue(True, "relu"), unit) for unit in (ZEN4, AVX2, NEON)])
    assert conv_case(family(spatial), problem, 4, 0.25, Epilogue(), ZEN4).kernel.family == "conv_1x3"


def test_many_taps_are_a_loop():
    """Code of its own for each of hundreds would be long, and slow to compile."""
    few = conv_case(conv, Conv(1, 4, 1, 400, 8, (1, 40)), 4, 1.0, Epilogue(), ZEN4)
    many = conv_case(conv, Conv(1, 4, 1, 900, 8, (1, 400), (1, 3)), 4, 1.0, Epilogue(), ZEN4)
    assert len(many.kernel.func.script()) < 2 * len(few.kernel.func.script())
    check([many, conv_case(family(sliced, slices=2), Conv(1, 4, 9, 70, 8, (3, 39), padding=(1, 19, 1, 19)), 4, 0.5,
                           Epilogue(), AVX2)])
