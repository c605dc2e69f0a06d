"""Fewer passes over kernels, and the same machine code."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import tvm

from onexn_plugins.tvm_backend.kernels.code.pipeline import PASS_CONFIG, compile_kernels
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Pool
from onexn_plugins.tvm_backend.processors import find_target, vector_unit
from tests.tvm_backend.kernels.differential import conv, depthwise, pooling, pruned_weight

POINTWISE = Conv(1, 24, 7, 7, 20)
CHANNELWISE = Conv(1, 8, 9, 9, 8, (3, 3), (2, 2), (1, 1, 1, 1), groups=8)


def test_kernels_become_the_machine_code_of_the_default_passes():
    target = find_target("cortex-a72")
    unit, bias = vector_unit(target), np.ones(20, np.float32)
    kernels = {
        "blocks": conv(POINTWISE, pruned_weight(24, 20, 0.3), bias, Epilogue(activation="relu"), unit),
        "depthwise": depthwise(CHANNELWISE, np.ones((8, 1, 3, 3), np.float32), bias[:8], Epilogue(), unit),
        "pool": pooling(Pool("max", 1, 8, 9, 9, (3, 3), (2, 2), (1, 1, 1, 1)), unit),
    }
    functions = {name: kernel.func.with_attr("global_symbol", name) for name, kernel in kernels.items()}
    compiler = tvm.target.Target(target.tvm)
    with tvm.transform.PassContext(opt_level=3, config=PASS_CONFIG):
        default = tvm.compile(tvm.IRModule(functions), target=compiler)
    instructions = code(compile_kernels(functions, compiler))
    assert len(instructions) > 300
    assert instructions == code(default)


def code(built: Any) -> list[str]:
    """The instructions; labels without their numbers."""
    library = built.mod.imports[0] if built.mod.imports else built.mod
    lines = [line.strip() for line in library.inspect_source("asm").splitlines()]
    return [re.sub(r"\.L\w+", ".L", line) for line in lines if re.match(r"[a-z]+[\s.]", line)]
