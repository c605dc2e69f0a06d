"""The instruction counter of benchmarks/arm, on a program whose instructions are known one by one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("tvm")

from benchmarks.arm.counting import Counter, Counts, counter
from benchmarks.common.emulation.cache import Unavailable
from onexn_plugins.tvm_backend.output.linker import compiler
from onexn_plugins.tvm_backend.processors import find_target
from tests.emulation.conftest import leave_out

INSTRUCTIONS = {
    "fma": ["fmla v0.4s, v1.4s, v2.4s", "fmla v0.4s, v1.4s, v2.s[3]", "fmls v0.2s, v1.2s, v2.2s",
            "fmls v0.4s, v1.4s, v2.s[0]", "fmadd s0, s1, s2, s3", "fmla v0.2d, v1.2d, v2.d[1]"],
    "loads": ["ldr q0, [sp]", "ldr x1, [sp, #8]", "ldur q0, [sp, #8]", "ldp q0, q1, [sp]", "ldp x1, x2, [sp]",
              "ld1 {v0.4s}, [x3]", "ld1 {v0.4s, v1.4s}, [x3], #32", "ld1r {v0.4s}, [x3]", "ld1 {v0.s}[1], [x3]",
              "ldr s0, [x3], #4", "ldrb w1, [sp]", "ldrsw x1, [sp]", "ldr d0, [sp, x4]", "ldar x1, [sp]"],
    "stores": ["str q0, [sp]", "str x1, [sp, #8]", "stur q0, [sp, #8]", "stp q0, q1, [sp]", "stp x1, x2, [sp]",
               "st1 {v0.4s}, [x5]", "st1 {v0.s}[1], [x5]", "str s0, [x5], #4", "strb w1, [sp]", "str d0, [sp, x4]"],
    "others": ["fmul v0.4s, v1.4s, v2.4s", "fadd v0.4s, v1.4s, v2.4s", "mul v0.4s, v1.4s, v2.s[1]", "add x1, x2, x3",
               "dup v0.4s, v1.s[1]", "mov w6, #5", "b 1f\n1:", "fmax v0.4s, v1.4s, v2.4s", "movi v0.4s, #0"],
}
INSTRUCTIONS_32 = {
    "fma": ["vfma.f32 q0, q1, q2", "vfms.f32 q0, q1, q2", "vmla.f32 q0, q1, q2", "vmla.f32 q0, q1, d4[1]",
            "vmls.f32 d0, d1, d2[0]", "vfma.f32 d0, d1, d2", "vfma.f32 s0, s1, s2", "vfnms.f32 s0, s1, s2",
            "vmla.f32 s0, s1, s2", "vnmla.f32 s0, s1, s2"],
    "loads": ["vld1.32 {d0, d1}, [r3]", "vld1.32 {d0[], d1[]}, [r3]", "vld1.32 {d0[1]}, [r3]", "vldr d0, [sp]",
              "vldr s0, [sp, #4]", "vldmia r3, {d0, d1}", "ldr r1, [sp]", "ldr r1, [sp, r4]", "ldrb r1, [sp]",
              "ldrh r1, [sp]", "ldrsb r1, [sp]", "ldrsh r1, [sp, r4]", "ldrd r6, r7, [sp]", "ldm r3, {r1, r2}"],
    "stores": ["vst1.32 {d0, d1}, [r5]", "vst1.32 {d0[1]}, [r5]", "vstr d0, [sp]", "vstmia r5, {d0, d1}",
               "str r1, [sp]", "strb r1, [sp, r4]", "strh r1, [sp]", "strd r6, r7, [sp]", "stm r5, {r1, r2}"],
    "others": ["vmul.f32 q0, q1, q2", "vadd.f32 q0, q1, q2", "vmul.f32 q0, q1, d4[1]", "vdup.32 q0, d2[0]",
               "vmax.f32 q0, q1, q2", "vmla.i32 q0, q1, q2", "add r1, r2, r3", "mul r1, r2, r1", "mov r6, #5",
               "b 1f\n1:", "vmov d0, r6, r7", "vmov r6, r7, d0", "vmov.i32 q0, #0", "vmul.f32 s0, s1, s2",
               "vadd.f32 s0, s1, s2", "smlabb r1, r2, r6, r7", "vorr q0, q1, q1"],
}
PROGRAM = """
.globl _start
_start:
    sub sp, sp, #256
    mov x3, sp
    mov x4, #16
    mov x5, sp
.rept {runs}
    {body}
.endr
    mov x0, #0
    mov x8, #93
    svc #0
"""
PROGRAM_32 = """
.arch armv7-a
.fpu neon-vfpv4
.arm
.globl _start
_start:
    sub sp, sp, #256
    mov r3, sp
    mov r4, #16
    mov r5, sp
.rept {runs}
    {body}
.endr
    mov r0, #0
    mov r7, #1
    svc #0
"""
CORES = {"cortex-a72": (PROGRAM, INSTRUCTIONS), "cortex-a7": (PROGRAM_32, INSTRUCTIONS_32)}


def counter_of(cpu: str) -> Counter:
    try:
        return counter(cpu)
    except Unavailable as reason:
        leave_out(reason)
        raise AssertionError("not reached") from reason


def assemble(cpu: str, folder: Path, runs: int) -> list[str]:
    text, instructions = CORES[cpu]
    body = "\n    ".join(line for kind in instructions.values() for line in kind)
    source, program = folder / f"{runs}.S", folder / f"program_{runs}"
    source.write_text(text.format(runs=runs, body=body))
    subprocess.run([*compiler(find_target(cpu)), "-static", "-nostdlib", "-o", str(program), str(source)], check=True)
    return [str(program)]


@pytest.mark.parametrize("cpu", CORES)
def test_every_kind_is_counted_exactly(cpu, tmp_path):
    counts, instructions = counter_of(cpu).count(lambda runs: assemble(cpu, tmp_path, runs)), CORES[cpu][1]
    assert counts == Counts(all=sum(map(len, instructions.values())), fma=len(instructions["fma"]),
                            loads=len(instructions["loads"]), stores=len(instructions["stores"]))


def test_a_program_that_fails_is_not_counted(tmp_path):
    with pytest.raises(RuntimeError, match="ended with"):
        counter_of("cortex-a72").count(lambda runs: [str(tmp_path / "nowhere")])
