"""Activations on their own, value by value: what a kernel's largest output would hide."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import tvm

from onexn_plugins.tvm_backend.kernels.code.pipeline import compile_kernels
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.processors import find_target, vector_unit
from tests.tvm_backend.kernels.differential import ACTIVATIONS, UNITS, Case, compile_functions, depthwise, run

# Tiny and huge ones, those at which exp leaves the range of float32, and many where activations bend.
VALUES = np.concatenate([[0.0, 1e-30, 1e-8, 80, 88, 89, 100, 3e4, 3e38], np.geomspace(1e-4, 50, 491)])
# What ONNX's formulas give at infinity, minus infinity and NaN.
BEYOND = {"relu": (np.inf, 0, np.nan), "relu6": (6, 0, np.nan), "hardsigmoid": (1, 0, np.nan),
          "hardswish": (np.inf, np.nan, np.nan), "sigmoid": (1, 0, np.nan), "silu": (np.inf, np.nan, np.nan),
          "gelu": (np.inf, np.nan, np.nan)}


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name])
@pytest.mark.parametrize("unit", UNITS)
def test_every_value_is_as_exact_as_float32(activation: str, unit: VectorUnit):
    x = np.concatenate([-VALUES, VALUES]).astype(np.float32).reshape(1, 1, 40, 25)
    one, zero = np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)
    kernel = depthwise(Conv(1, 1, 40, 25, 1), one, zero, Epilogue(activation=activation), unit)
    expected = ACTIVATIONS[activation](torch.from_numpy(x).double()).numpy()
    function = compile_functions({"kernel": kernel.func.with_attr("global_symbol", "kernel")})["kernel"]
    actual = run(function, Case(kernel, [x], torch.from_numpy(expected)))
    beyond = np.resize(np.array([np.inf, -np.inf, np.nan], np.float32), x.shape)
    as_defined = np.resize(BEYOND[activation], x.shape)
    np.testing.assert_array_equal(run(function, Case(kernel, [beyond], torch.from_numpy(as_defined))), as_defined)
    # Where a sum loses digits (x + 3 near -3, exp of a large number) they are lost of x, not of the result.
    allowed = 4e-7 * np.abs(expected) + 2e-7 * np.minimum(np.abs(x), 20)
    assert (np.abs(actual - expected) <= allowed).all(), np.abs(actual - expected).max()


@pytest.mark.parametrize(("board", "instruction"), [("cortex-a7", r"\tvmax\.f32\tq"), ("cortex-a72", r"\tfmax\t")])
def test_arm_clamps_with_one_instruction(board: str, instruction: str):
    target = find_target(board)
    one, zero = np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)
    kernel = depthwise(Conv(1, 1, 8, 8, 1), one, zero, Epilogue(activation="relu6"), vector_unit(target))
    built = compile_kernels({"kernel": kernel.func}, tvm.target.Target(target.tvm))
    code = built.mod.imports[0].inspect_source("asm") if built.mod.imports else built.mod.inspect_source("asm")
    assert re.search(instruction, code)
    assert re.search(instruction.replace("max", "min"), code)
    assert not re.search(r"\tv?f?cmg|\tv?b(sl|if|it)\t|\tvcgt", code), "a comparison and a selection"
