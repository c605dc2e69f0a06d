"""What LLVM makes of the inner loops on ARM."""

from __future__ import annotations

import pytest

pytest.importorskip("tvm")

from benchmarks.common.families import FAMILIES
from benchmarks.common.loops import heart, inner_loops, multiply_adds
from onexn_plugins.tvm_backend.processors import find_target, vector_unit


def test_loops_within_loops_are_found():
    text = """
.LBB0_1:                                @ outer
    mov r1, #0
.LBB0_2:                                @ inner
    vfma.f32 q0, q1, q2
    vfma.f32 d0, d2, d4
    bne .LBB0_2
    b.lt .LBB0_1
    b .LBB0_9
"""
    (loop,) = inner_loops(text)
    assert loop == ["vfma.f32 q0, q1, q2", "vfma.f32 d0, d2, d4", "bne .LBB0_2"]
    assert multiply_adds(loop) == 1


@pytest.mark.parametrize("core", ["cortex-a72", "cortex-a7"])
@pytest.mark.parametrize("family", ["1×1, 25 % kept", "3×3 of stride 2, 25 % kept", "depthwise 3×3"])
def test_multiplications_are_fused_and_sums_stay_in_registers(family, core):
    """LLVM multiplies and adds apart on a Cortex-A7 unless told, and lets loads of all taps take the registers."""
    target = find_target(core)
    kernel, _ = FAMILIES[family](vector_unit(target))
    loop = heart(kernel, target)
    assert not any(line.split()[0] in ("vmul.f32", "vadd.f32", "fmul", "fadd") for line in loop)
    assert len(loop) < 3 * multiply_adds(loop)
