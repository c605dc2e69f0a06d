"""What one core of this machine can do at best, measured: the two lines of the roofline model.

Williams, Waterman, Patterson: Roofline, An Insightful Visual Performance Model (CACM 2009).
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Register, load
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.lowering.passes import pass_context
from onexn_plugins.tvm_backend.processors import Target, vector_unit

_SUMS = 12  # multiply-adds under way at once: more than latency times throughput of any core
_STEPS = 20_000
_STREAM_VALUES = 2**24  # 64 MiB: beyond the last cache
_REPEAT = 10


@dataclass(frozen=True)
class Roofline:
    """The best of one core.

    Attributes:
        macs: float32 multiply-adds per second, from registers.
        bandwidth: bytes per second read from memory.
    """

    macs: float
    bandwidth: float

    def seconds(self, macs: int, weight_bytes: int) -> float:
        """The least time for so many multiply-adds whose weights come from memory; activations are in the cache."""
        return max(macs / self.macs, weight_bytes / self.bandwidth)


@functools.cache
def measure(target: Target) -> Roofline:
    """Measure this machine with the vector unit of `target`; takes a tenth of a second, once."""
    unit = vector_unit(target)
    functions = {"multiply_add": _multiply_add(unit), "read": _read(unit)}
    with tvm.target.Target(target.tvm), pass_context():
        module = tvm.compile(tvm.IRModule(functions), target=tvm.target.Target(target.tvm))
    y = tvm.runtime.tensor(np.zeros(unit.lanes, np.float32))
    factors = tvm.runtime.tensor(np.full(2 * unit.lanes, 0.5, np.float32))
    stream = tvm.runtime.tensor(np.ones(_STREAM_VALUES, np.float32))
    macs = _SUMS * _STEPS * unit.lanes / _fastest(lambda: module["multiply_add"](factors, y))
    return Roofline(macs, 4 * _STREAM_VALUES / _fastest(lambda: module["read"](stream, y)))


def _fastest(run: Any) -> float:
    """Seconds of the fastest of a few runs."""
    times = []
    for _ in range(_REPEAT):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _multiply_add(unit: VectorUnit) -> Any:
    """Nothing but fused multiply-adds on registers."""
    def emit(buffers: Buffers) -> None:
        left, right = (Register(load(buffers.x, part * unit.lanes, unit.lanes), unit.lanes) for part in range(2))
        sums = [Register(left.value, unit.lanes) for _ in range(_SUMS)]
        with T.serial(0, _STEPS):
            for total in sums:
                total.set(total.value * left.value + right.value)
        _store_total(buffers, sums, unit)

    return build("multiply_add", (2 * unit.lanes,), (unit.lanes,), {}, emit, unit).func


def _read(unit: VectorUnit) -> Any:
    """One pass over an array."""
    def emit(buffers: Buffers) -> None:
        sums = [Register(load(buffers.x, 0, unit.lanes), unit.lanes) for _ in range(4)]
        with T.serial(0, _STREAM_VALUES // (4 * unit.lanes)) as step:
            for position, total in enumerate(sums):
                total.set(total.value + load(buffers.x, (step * 4 + position) * unit.lanes, unit.lanes))
        _store_total(buffers, sums, unit)

    return build("read", (_STREAM_VALUES,), (unit.lanes,), {}, emit, unit).func


def _store_total(buffers: Buffers, sums: list[Register], unit: VectorUnit) -> None:
    total = sums[0].value
    for other in sums[1:]:
        total = total + other.value
    buffers.output.store(0, total, unit.lanes)
