"""A transposed convolution as convolutions of stride 1, one for each phase of its output.

Phase (v, h) is every stride-th row and column of the output from row v and column h on. Along an axis, output
q * stride + v sums the taps t for which v + padding - t * dilation is a multiple of the stride, each times the pixel
q + (v + padding - t * dilation) / stride. From one such tap to the next the pixel moves by as much in every phase, so
phases with as many taps are alike: they read the same pattern of pixels, only from another place on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from onexn_plugins.tvm_backend.kernels.problem import Conv, Transposed


@dataclass(frozen=True)
class AxisPhase:
    """A phase along one axis.

    Attributes:
        number: its first output.
        taps: those that fall on it, the one that reads the first pixel at the beginning.
        reads: which pixel each reads for the phase's first output; negative ones and those beyond the end are padding.
    """

    number: int
    taps: tuple[int, ...]
    reads: tuple[int, ...]


@dataclass(frozen=True)
class Phase:
    """A phase of the output.

    Attributes:
        number: row-major among all phases of the output.
        taps: row-major numbers of the weight's taps that fall on it; may be none.
        reads: the (row, column) of the pixel that each reads for the phase's first output.
    """

    number: int
    taps: tuple[int, ...]
    reads: tuple[tuple[int, int], ...]

    @property
    def steps(self) -> tuple[tuple[int, int], ...]:
        """How far each pixel lies behind the first one."""
        return tuple((row - self.reads[0][0], column - self.reads[0][1]) for row, column in self.reads)


def axis_phases(kernel: int, stride: int, dilation: int, padding: int) -> list[AxisPhase]:
    """All phases along an axis, `padding` being what is cut off at its beginning."""
    found = []
    for number in range(stride):
        reads = [((number + padding - tap * dilation) // stride, tap) for tap in range(kernel)
                 if (number + padding - tap * dilation) % stride == 0]
        reads.sort()
        found.append(AxisPhase(number, tuple(tap for _, tap in reads), tuple(pixel for pixel, _ in reads)))
    return found


def phases_of(problem: Transposed) -> list[Phase]:
    """All phases of the output, row-major."""
    rows, columns = _axes(problem)
    return [
        Phase(row.number * problem.stride[1] + column.number,
              tuple(tap * problem.kernel[1] + other for tap, other in product(row.taps, column.taps)),
              tuple(product(row.reads, column.reads)))
        for row, column in product(rows, columns)
    ]


def alike(phases: list[Phase]) -> list[list[Phase]]:
    """The phases that have taps, those together that differ only in where they begin to read."""
    groups: dict[tuple[tuple[int, int], ...], list[Phase]] = {}
    for phase in phases:
        if phase.taps:
            groups.setdefault(phase.steps, []).append(phase)
    return list(groups.values())


def as_read(problem: Transposed) -> tuple[Conv, tuple[int, int]]:
    """A convolution of stride 1 whose window holds all that the phases read, and the (row, column) of the image at
    which that window begins for the first output of each phase. Its outputs are those of a phase; phases that end
    earlier have one row or column less.
    """
    (first_row, rows), (first_column, columns) = (_reach(axis) for axis in _axes(problem))
    height, width = (-(-size // stride) for size, stride in zip(problem.size, problem.stride, strict=True))
    padding = (-first_row, -first_column, height + rows - 1 - problem.height + first_row,
               width + columns - 1 - problem.width + first_column)
    conv = Conv(problem.batch, problem.in_channels, problem.height, problem.width, problem.out_channels,
                (rows, columns), padding=padding, groups=problem.groups)
    return conv, (first_row, first_column)


def is_row(problem: Transposed) -> bool:
    """Images are one row: a signal."""
    return problem.height == 1 and _is_plain(problem, 0)


def is_column(problem: Transposed) -> bool:
    """Images are one column."""
    return problem.width == 1 and _is_plain(problem, 1)


def _is_plain(problem: Transposed, axis: int) -> bool:
    """One tap, one output and no padding along an axis."""
    return (problem.size[axis], problem.kernel[axis], problem.stride[axis], problem.padding[axis]) == (1, 1, 1, 0)


def upright(problem: Transposed) -> Transposed:
    """The same signal as a column, of which bands are cut: in memory it is the same."""
    _, left, _, right = problem.padding
    return replace(problem, height=problem.width, width=1, kernel=(problem.kernel[1], 1), stride=(problem.stride[1], 1),
                   padding=(left, 0, right, 0), dilation=(problem.dilation[1], 1), size=(problem.size[1], 1))


def _axes(problem: Transposed) -> tuple[list[AxisPhase], list[AxisPhase]]:
    rows, columns = (axis_phases(problem.kernel[axis], problem.stride[axis], problem.dilation[axis],
                                 problem.padding[axis]) for axis in (0, 1))
    return rows, columns


def _reach(phases: list[AxisPhase]) -> tuple[int, int]:
    """The first pixel that a phase's first output reads, and how many there are from it to the last one."""
    reads = [pixel for phase in phases for pixel in phase.reads]
    return min(reads), max(reads) - min(reads) + 1
