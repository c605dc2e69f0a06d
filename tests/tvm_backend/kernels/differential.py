"""Compile kernels and compare them with torch in float64, with NaNs around every buffer and in all scratch memory."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tvm
import tvm_ffi
from hypothesis import Phase, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from benchmarks.common.requests import single, stage
from benchmarks.common.weights import pruned
from onexn_plugins.pattern import BlockPattern, weight_mask
from onexn_plugins.tvm_backend.kernels.choose import kernel_of
from onexn_plugins.tvm_backend.kernels.code.pipeline import compile_kernels
from onexn_plugins.tvm_backend.kernels.code.vector import splat, store
from onexn_plugins.tvm_backend.kernels.cores import CORES
from onexn_plugins.tvm_backend.kernels.parts.tiling import default_tile
from onexn_plugins.tvm_backend.kernels.problem import (
    Conv,
    Conv3d,
    Epilogue,
    GlobalPool,
    Kernel,
    Linear,
    Pool,
    Tile,
    Transposed,
)
from onexn_plugins.tvm_backend.kernels.request import Request, Stage
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from tests.tvm_backend.kernels.bounds import with_bounds_checks

AVX512, ZEN4, AVX2, SSE, NEON, NEON_V7 = (
    CORES[name] for name in ("avx512", "zen4", "avx2", "sse", "cortex-a72", "cortex-a7"))
UNITS = [AVX512, ZEN4, AVX2, SSE, NEON, NEON_V7]
TOLERANCE = 1e-5  # of the largest output
CASES_PER_MODULE = 6  # compiling costs more than running: many kernels share a module
GUARD = 1024  # NaNs on either side of a buffer
ALIGNMENT = 64  # bytes; TVM compiles kernels for it
DENORMAL = 1e-40

_LIBM = ctypes.CDLL("libm.so.6") if platform.machine() == "x86_64" else None
_MXCSR, _DENORMAL_OPERAND = 7, 2  # where glibc's fenv_t has x86's register of flags, and a bit of it

# Shrinking would compile hundreds of modules; a failing case prints all its parameters.
differential_settings = settings(max_examples=4, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])

ACTIVATIONS = {
    None: lambda x: x, "relu": F.relu, "relu6": F.relu6, "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid, "silu": F.silu, "sigmoid": torch.sigmoid, "gelu": F.gelu,
}
epilogues = st.builds(Epilogue, st.booleans(), st.sampled_from(list(ACTIVATIONS)), st.booleans())
units = st.sampled_from(UNITS)
densities = st.sampled_from([0.0, 0.1, 0.5, 1.0])


@dataclass(frozen=True)
class Case:
    """A kernel, its inputs (x first, then the residual where there is one) and what it must give."""

    kernel: Kernel
    inputs: Sequence[np.ndarray]
    expected: Tensor


def random_weight(problem: Conv | Linear, block_size: int, density: float, rng: np.random.Generator) -> np.ndarray:
    """A weight with about `density` of its blocks kept, whole rows empty now and then."""
    groups = problem.groups if isinstance(problem, Conv) else 1
    weight = torch.from_numpy(random_array(problem.weight_shape, rng))
    pattern = BlockPattern.of(weight, min(block_size, weight.shape[0] // groups), groups)
    keep = torch.from_numpy(rng.random(pattern.shape) < density)
    return (weight * weight_mask(keep, pattern, weight)).numpy()


def random_array(shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def convolve(problem: Conv, x: np.ndarray | Tensor, weight: np.ndarray, bias: np.ndarray) -> Tensor:
    """The reference convolution in float64."""
    if isinstance(problem, Transposed):
        return transpose(problem, x, weight, bias)
    top, left, bottom, right = problem.padding
    weights, biases = torch.from_numpy(weight).double(), torch.from_numpy(bias).double()
    if isinstance(problem, Conv3d):
        padded = F.pad(torch.as_tensor(x).double(), (left, right, top, bottom, *problem.frame_padding))
        return F.conv3d(padded, weights, biases, (problem.frame_stride, *problem.stride), 0,
                        (problem.frame_dilation, *problem.dilation), problem.groups)
    padded = F.pad(torch.as_tensor(x).double(), (left, right, top, bottom))
    return F.conv2d(padded, weights, biases, problem.stride, 0, problem.dilation, problem.groups)


def transpose(problem: Transposed, x: np.ndarray | Tensor, weight: np.ndarray, bias: np.ndarray) -> Tensor:
    """The reference transposed convolution in float64: all that pixels add to, of which the output is a part."""
    groups, image = problem.groups, torch.as_tensor(x).double().reshape(-1, problem.in_channels, problem.height,
                                                                        problem.width)
    weights = torch.from_numpy(weight).double().reshape(groups, -1, problem.in_channels // groups, *problem.kernel)
    whole = F.conv_transpose2d(image, weights.transpose(1, 2).flatten(0, 1), None, problem.stride, 0, 0, groups,
                               problem.dilation)
    for axis, (size, before) in enumerate(zip(problem.size, problem.padding[:2], strict=True), 2):
        whole = whole.narrow(axis, min(before, whole.shape[axis]), max(0, whole.shape[axis] - before))
        missing = max(0, size - whole.shape[axis])
        whole = F.pad(whole, (0, missing) if axis == 3 else (0, 0, 0, missing)).narrow(axis, 0, size)
    return (whole + torch.from_numpy(bias).double()[:, None, None]).reshape(problem.output_shape)


def finish(value: Tensor, epilogue: Epilogue, residual: Sequence[np.ndarray]) -> Tensor:
    """The reference epilogue."""
    if epilogue.residual:
        value = value + torch.from_numpy(residual[0])
    return ACTIVATIONS[epilogue.activation](value)


def conv_case(family: Callable[..., Kernel], problem: Conv, block_size: int, density: float, epilogue: Epilogue,
              unit: VectorUnit, seed: int = 0, vectors: int | None = None) -> Case:
    """A random convolution by that family of kernels; its default tile unless `vectors` are given."""
    rng = np.random.default_rng(seed)
    x, bias = random_array(problem.input_shape, rng), random_array((problem.out_channels,), rng)
    weight = random_weight(problem, block_size, density, rng)
    residual = [random_array(problem.output_shape, rng)] if epilogue.residual else []
    tile = default_tile(problem, block_size, unit) if vectors is None else Tile(block_size, vectors)
    kernel = family(problem, weight, bias, epilogue, unit, tile)
    return Case(kernel, [x, *residual], finish(convolve(problem, x, weight, bias), epilogue, residual))


def family(build: Callable[..., Kernel], **options: Any) -> Callable[..., Kernel]:
    """A family's kernels, asked for as `conv` asks for the family that fits."""
    return lambda *arguments: build(single(*arguments), **options)


def in_slices(build: Callable[..., Kernel], slices: int | None) -> Callable[..., Kernel]:
    """A family of sliced kernels with so many slices, as conv_case wants it; None leaves their number to the kernel."""
    return family(build, slices=slices)


def conv(problem: Conv, weight: np.ndarray, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit,
         tile: Tile | None = None) -> Kernel:
    """The convolution of the family that fits, by default in the tile of a dense one."""
    return kernel_of(single(problem, weight, bias, epilogue, unit, tile))


def linear(problem: Linear, weight: np.ndarray, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit,
           tile: Tile | None = None) -> Kernel:
    """As conv, for a linear layer."""
    return kernel_of(single(problem, weight, bias, epilogue, unit, tile))


def depthwise(problem: Conv, weight: np.ndarray, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit) -> Kernel:
    """As conv, for a depthwise one."""
    return kernel_of(Request((stage(problem, weight, bias, epilogue),), unit))


def pair(first: Sequence[Any], second: Sequence[Any], unit: VectorUnit, tile: Tile | None = None,
         *others: Stage) -> Request:
    """A convolution, the depthwise one after it, each as (problem, weight, bias, epilogue), and what follows."""
    return Request((*single(*first, unit, tile).stages, stage(*second), *others), unit)


def pooling(problem: Pool | GlobalPool, unit: VectorUnit) -> Kernel:
    """A pool or the mean of every channel."""
    return kernel_of(Request((Stage(problem),), unit))


def pruned_weight(channels: int, out_channels: int, kept: float) -> np.ndarray:
    """[out_channels, channels, 1, 1] with exactly that share of the blocks of four, drawn over the layer."""
    return pruned(Conv(1, channels, 7, 7, out_channels), kept, 4)


def check(cases: Sequence[Case], tolerance: float = TOLERANCE) -> None:
    """Compile all cases as one module, run them with every access checked, then as they are, and compare."""
    named = {f"kernel_{index}": case for index, case in enumerate(cases)}
    functions = {name: case.kernel.func.with_attr("global_symbol", name) for name, case in named.items()}
    careful = compile_functions({name: with_bounds_checks(func) for name, func in functions.items()}, optimise=False)
    module = compile_functions({**functions, "poison": _poison()})
    for name, case in named.items():
        run(careful[name], case)
        unwritten = _meets_denormals(module, name, case, DENORMAL) and not _meets_denormals(module, name, case, 1.0)
        assert not unwritten, f"{case.kernel.func.script()[:2000]}\ncomputes with what nothing wrote"
        _fill_scratch(module, np.nan)
        actual = run(module[name], case)
        expected = case.expected.numpy()
        scale = max(1e-6, float(np.abs(expected).max()))
        error = float(np.abs(actual - expected).max()) / scale
        assert error <= tolerance, f"{case.kernel.func.script()[:2000]}\nis off by {error} of its scale"


def _fill_scratch(module: Any, value: float) -> None:
    """Fill the scratch memory that the next kernel is given."""
    module["poison"](tvm.runtime.tensor(np.full(1, value, np.float32)))


def _meets_denormals(module: Any, name: str, case: Case, scratch: float) -> bool:
    """Whether a kernel computes with denormal numbers, of which x86 keeps a flag, where its scratch is full of a value.

    Such an operand takes a hundred times as long. Memory that nobody wrote often holds some: halves of addresses are.
    """
    if _LIBM is None:
        return False
    _fill_scratch(module, scratch)
    state = (ctypes.c_uint32 * 8)()  # fenv_t; what C calls exceptions leaves this flag out
    _LIBM.fegetenv(state)
    state[_MXCSR] &= ~_DENORMAL_OPERAND
    _LIBM.fesetenv(state)
    run(module[name], case)
    _LIBM.fegetenv(state)
    return bool(state[_MXCSR] & _DENORMAL_OPERAND)


def compile_functions(functions: dict[str, Any], *, optimise: bool = True) -> Any:
    """As the backend compiles kernels; not optimised by LLVM in less time."""
    cpu = tvm.get_global_func("target.llvm_get_system_cpu")()
    target = {"kind": "llvm", "mcpu": cpu, "opt-level": 3 if optimise else 0}
    return compile_kernels(functions, tvm.target.Target(target))


def run(function: Any, case: Case) -> np.ndarray:
    """The kernel's output; inputs and output lie between NaNs, and those around the output must survive.

    Inputs lie where vectors are not aligned: a network's caller may have them anywhere.
    """
    *inputs, before = case.inputs if case.kernel.in_place else [*case.inputs, np.full_like(case.expected, np.nan)]
    whole, y = guarded(np.array(before, np.float32))
    inputs = [guarded(array, off=1)[1] for array in inputs]
    constants = [guarded(array)[1] for array in case.kernel.constants]
    function(*map(tvm_ffi.from_dlpack, [inputs[0], *constants, *inputs[1:], y]))
    outside = np.concatenate([whole[: _offset(whole, y)], whole[_offset(whole, y) + y.size :]])
    assert np.isnan(outside).all(), "the kernel wrote outside its output"
    return y


def guarded(array: np.ndarray, off: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(memory full of NaNs or the largest integers, a copy of the array in its middle, so many values off aligned)."""
    filler = np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max
    whole = np.full(array.size + 2 * GUARD, filler, array.dtype)
    misaligned = (whole.ctypes.data + GUARD * array.itemsize) % ALIGNMENT
    start = GUARD - misaligned // array.itemsize + off
    middle = whole[start : start + array.size].reshape(array.shape)
    middle[...] = array
    return whole, middle


def _offset(whole: np.ndarray, part: np.ndarray) -> int:
    return (part.ctypes.data - whole.ctypes.data) // whole.itemsize


@functools.cache
def _poison() -> Any:
    """Fills the workspaces of the thread's pool, which the next kernel is given, with its argument."""
    sizes = [2**power for power in range(10, 23)]
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name("poison")
            T.func_attr({"tirx.noalias": True, "global_symbol": "poison"})
            x = T.arg("x", T.Buffer((1,), "float32"))
            for size in sizes:
                scratch = T.alloc_buffer((size,), "float32", scope="global")
                with T.serial(0, size // 16) as index:
                    store(scratch, index * 16, splat(x[0], 16), 16)
                T.buffer_store(x, scratch[0], [0])
        return builder.get()
