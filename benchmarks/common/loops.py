"""The inner loops that LLVM makes of a kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import tvm

from onexn_plugins.tvm_backend.kernels.code.pipeline import compile_kernels
from onexn_plugins.tvm_backend.kernels.problem import Kernel
from onexn_plugins.tvm_backend.processors import Target

_LABEL = re.compile(r"(\.LBB\w+):")
_BRANCH = re.compile(r"(?:b[a-z.]*|cbn?z|tbn?z)\s.*?(\.LBB\w+)")
_COMMENT = re.compile(r"\s*(?://|@).*")
# Four lanes, of 64-bit and of 32-bit ARM.
_MULTIPLY_ADD = re.compile(r"fmla\s+v\d+\.4s|v(?:fma|mla)\.f32\s+q")

Loop = list[str]


def heart(kernel: Kernel, target: Target) -> Loop:
    """The instructions of the inner loop that multiplies most."""
    return max(inner_loops(assembly(kernel, target)), key=multiply_adds)


def multiply_adds(loop: Loop) -> int:
    """How many instructions multiply four lanes and add them."""
    return sum(bool(_MULTIPLY_ADD.match(line)) for line in loop)


def assembly(kernel: Kernel, target: Target) -> str:
    """As TVM's LLVM writes it."""
    function = kernel.func.with_attr("global_symbol", "kernel")
    module = compile_kernels({"kernel": function}, tvm.target.Target(target.tvm)).mod
    return next(part.inspect_source("asm") for part in _parts(module) if part.kind == "llvm")


def inner_loops(text: str) -> list[Loop]:
    """From a label to a branch back to it, where no other such loop lies between; labels and directives left out."""
    lines = [_COMMENT.sub("", line).strip() for line in text.splitlines()]
    labels = {found[1]: number for number, line in enumerate(lines) if (found := _LABEL.match(line))}
    loops = [(labels[found[1]], number) for number, line in enumerate(lines)
             if (found := _BRANCH.fullmatch(line)) and labels.get(found[1], number) < number]
    inner = [loop for loop in loops
             if not any(loop[0] <= start and end <= loop[1] for start, end in loops if (start, end) != loop)]
    return [[line for line in lines[start:end + 1] if line and not line.startswith(".")] for start, end in inner]


def _parts(module: Any) -> Iterator[Any]:
    yield module
    for part in module.imports:
        yield from _parts(part)
