"""How threads share a kernel: one parallel loop, each turn of which takes a run of the work's units.

A unit is a job (an image, conv group or band with scratch of its own), a block row, a band or a tile of pixels. Runs
are cut where their multiply-adds are about equal, so that rows with more kept blocks come in shorter runs. The order in
which an output is summed does not depend on the cut, so results are the same bit by bit for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Expr
from onexn_plugins.tvm_backend.kernels.encode import Encoded
from onexn_plugins.tvm_backend.kernels.problem import Conv

# Units [first, last); None is all of them.
Run = tuple[Expr, Expr] | None

JOBS, BANDS, ROWS, TILES = "jobs", "bands", "rows", "tiles"

# Multiply-adds that a core does while a parallel loop starts and ends (about 3 us on AVX-512).
LAUNCH = 150_000
# Multiply-adds that take as long as storing one sum, and as copying one value.
STORE, COPY = 2, 8
# And as fetching a value that another core has written (measured in MobileNetV2: 0.3 to 0.5 ns).
EXCHANGE = 12


@dataclass(frozen=True)
class Sharing:
    """How a kernel is shared.

    Attributes:
        axis: which units the parallel loop is over; None leaves the kernel serial.
        starts: thread t takes units starts[t] to starts[t + 1].
        cost: multiply-adds of the longest run, and those that starting the threads takes.
    """

    axis: str | None
    starts: tuple[int, ...]
    cost: float

    def along(self, axes: Sequence[str], emit: Callable[[dict[str, Run]], None]) -> None:
        """Emit code once, inside of the parallel loop if it is over one of these axes; `emit` gets that axis' run."""
        if self.axis is None or self.axis not in axes:
            emit({})
            return
        with T.parallel(0, len(self.starts) - 1) as thread:
            emit({self.axis: (pick(self.starts[:-1], thread), pick(self.starts[1:], thread))})


def share(threads: int, candidates: dict[str, np.ndarray], launches: dict[str, int] | None = None,
          exchanged: int = 0) -> Sharing:
    """The cheapest way to share a kernel, serial if it is too small.

    Args:
        threads: how many there are.
        candidates: by axis the cost of every unit in multiply-adds; the first of equal ones is taken.
        launches: by axis how many parallel loops run one after the other; one where it is not said.
        exchanged: values read and written. Where threads share block rows, all need what each has written; the other
            axes leave to a core the part of the image that it had in the layer before.
    """
    total = min(float(costs.sum()) for costs in candidates.values())
    best = Sharing(None, (), total)
    if threads > 1:
        for axis, costs in candidates.items():
            starts = balanced(costs, threads)
            longest = max(float(costs[first:last].sum()) for first, last in pairwise(starts))
            cost = longest + LAUNCH * (launches or {}).get(axis, 1)
            if axis == ROWS:
                cost += EXCHANGE * exchanged * (1 - 1 / threads)
            if cost < best.cost:
                best = Sharing(axis, starts, cost)
    return best


def share_bands(problem: Conv, encoded: Encoded, pixels: float, bands: int, packing: float, threads: int) -> Sharing:
    """As share, for kernels that pack each band of an image and sum its block rows then: threads take bands that each
    packs itself, or all take channels, then block rows, of each band.

    Args:
        problem: the convolution.
        encoded: its weight.
        pixels: computed in a band.
        bands: of an image.
        packing: multiply-adds that packing a band is worth.
        threads: how many there are.
    """
    repeats = problem.batch * problem.groups * bands
    rows = row_costs(encoded, pixels) * problem.batch * bands
    return share(threads, {
        JOBS: job_costs(encoded, pixels, problem.batch, packing).repeat(bands),
        ROWS: rows + packing * repeats / len(rows),
    }, {ROWS: 2 * repeats}, math.prod(problem.input_shape) + math.prod(problem.output_shape))


def balanced(costs: np.ndarray, threads: int) -> tuple[int, ...]:
    """Where to cut a row of units into at most `threads` runs of about equal cost; no run is empty."""
    ends = np.cumsum(costs, dtype=np.float64)
    cuts = [int(np.abs(ends - ends[-1] * thread / threads).argmin()) + 1 for thread in range(1, threads)]
    return tuple(sorted({0, *cuts, len(costs)}))


def row_costs(encoded: Encoded, pixels: float) -> np.ndarray:
    """Multiply-adds of each block row within its group, over all groups."""
    per_pixel = (encoded.row_counts * encoded.taps + STORE) * encoded.block_size
    return per_pixel.reshape(encoded.pattern.groups, -1).sum(0) * float(pixels)


def job_costs(encoded: Encoded, pixels: float, batch: int, fixed: float = 0.0) -> np.ndarray:
    """Multiply-adds of each (image, group), and a fixed cost for each."""
    per_pixel = (encoded.row_counts * encoded.taps + STORE) * encoded.block_size
    return np.tile(per_pixel.reshape(encoded.pattern.groups, -1).sum(1) * float(pixels) + fixed, batch)


def each_job(sizes: Sequence[int], run: Run, emit: Callable[..., None]) -> None:
    """Emit nested loops over all jobs, or one over those of a run; `emit` gets one index per size."""
    if run is not None:
        with T.serial(*run) as job:
            indices = []
            for size in reversed(sizes):
                indices.append(tirx.truncmod(job, size))
                job = tirx.truncdiv(job, size)
            emit(*reversed(indices))
    elif len(sizes) == 1:
        with T.serial(0, sizes[0]) as index:
            emit(index)
    else:
        with T.serial(0, sizes[0]) as index:
            each_job(sizes[1:], None, lambda *inner: emit(index, *inner))


def each_shared_job(sizes: Sequence[int], cost: float, threads: int, emit: Callable[..., None]) -> None:
    """As each_job, shared by the threads; every job costs as many multiply-adds."""
    sharing = share(threads, {JOBS: np.full(math.prod(sizes), cost)})
    sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), emit))


def window_cost(problem: Conv) -> float:
    """About what packing and summing one channel costs, in multiply-adds."""
    return problem.out_height * problem.out_width * (2.0 * problem.taps + STORE) + problem.height * problem.width * COPY


@contextmanager
def turn(unit: int, run: Run) -> Iterator[None]:
    """What is emitted inside runs if the run holds this unit."""
    if run is None:
        yield
        return
    first, last = run
    with T.serial(tirx.max(first, unit), tirx.min(last, unit + 1)):
        yield


def pick(values: Sequence[int], index: Expr) -> Expr:
    """values[index] of a few constants."""
    found: Expr = tirx.IntImm("int32", values[0])
    for position, value in enumerate(values[1:], 1):
        found = tirx.Select(index >= position, tirx.IntImm("int32", value), found)
    return found
