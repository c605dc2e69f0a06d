"""The instruction counter of benchmarks/arm, on a program whose instructions are known one by one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("tvm")

from benchmarks.arm.counting import Counts, counter
from onexn_plugins.tvm_backend.linker import compiler
from onexn_plugins.tvm_backend.targets import find_target
from tests.emulation.cache import Unavailable
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


@pytest.fixture(scope="module")
def counting():
    try:
        return counter()
    except Unavailable as reason:
        leave_out(reason)


def assemble(folder: Path, runs: int) -> list[str]:
    body = "\n    ".join(line for kind in INSTRUCTIONS.values() for line in kind)
    source, program = folder / f"{runs}.S", folder / f"program_{runs}"
    source.write_text(PROGRAM.format(runs=runs, body=body))
    subprocess.run([*compiler(find_target("cortex-a72")), "-static", "-nostdlib", "-o", str(program), str(source)],
                   check=True)
    return [str(program)]


def test_every_kind_is_counted_exactly(counting, tmp_path):
    counts = counting.count(lambda runs: assemble(tmp_path, runs))
    assert counts == Counts(all=sum(map(len, INSTRUCTIONS.values())), fma=len(INSTRUCTIONS["fma"]),
                            loads=len(INSTRUCTIONS["loads"]), stores=len(INSTRUCTIONS["stores"]))


def test_a_program_that_fails_is_not_counted(counting, tmp_path):
    with pytest.raises(RuntimeError, match="ended with"):
        counting.count(lambda runs: [str(tmp_path / "nowhere")])
