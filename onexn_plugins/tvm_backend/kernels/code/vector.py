"""Vector expressions and registers on TVM's IRBuilder: what every kernel is written in.

A register is a one-vector buffer of its own in scope "global": LLVM promotes it to a machine register. Scope "local"
would become a heap workspace on CPUs and twice as slow; that storage rewriting must stay off follows from it, because
the rewrite fails on buffers of different lane counts (`pipeline.PASS_CONFIG`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.expression import Buffer, Expr, Term
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

LINE = 16  # float32 in a cache line


def vector_type(lanes: int) -> str:
    return "float32" if lanes == 1 else f"float32x{lanes}"


def constant(value: float, lanes: int = 1) -> Term:
    return splat(tirx.FloatImm("float32", float(value)), lanes)


def splat(value: Expr, lanes: int) -> Term:
    """A scalar in every lane."""
    assert not isinstance(value, int), "vectors are of float32"
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def load(buffer: Buffer, index: Expr, lanes: int, stride: int = 1) -> Term:
    """`lanes` values from `index` on, every stride-th."""
    if lanes == 1:
        return buffer[index]
    if stride == 1:
        return buffer.vload([index], vector_type(lanes))
    return buffer[tirx.Ramp(index, stride, lanes)]


def store(buffer: Buffer, index: Expr, value: Expr, lanes: int) -> None:
    """Write a vector of `lanes` values from `index` on."""
    T.buffer_store(buffer, value, [index if lanes == 1 else tirx.Ramp(index, 1, lanes)])


def prefetch(buffer: Buffer, index: Expr, *, to_write: bool = False) -> None:
    """Ask for the cache line of a value that is read or written soon; it may lie beyond the end."""
    writing, all_caches, data = (tirx.IntImm("int32", value) for value in (int(to_write), 3, 1))
    address = tirx.address_of(buffer[index])
    T.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", address, writing, all_caches, data))


def channel_stride(values: int, lanes: int) -> int:
    """Values between two channels of scratch that hold so many each: an odd number of whole vectors, so that all are
    aligned and channels do not share few sets of the cache, as a power of two would have it.
    """
    return (-(-values // lanes) | 1) * lanes


def view(buffer: Buffer, first: Expr) -> Buffer:
    """What lies in a buffer from `first` on, as a buffer whose address is computed here, once.

    Only of a buffer that the kernel does not write: to LLVM the two are different memory.
    """
    address = T.bind(T.address_of(buffer[first]), T.handle(buffer.dtype).ty)
    return T.decl_buffer(buffer.shape, buffer.dtype, data=address)


def shuffle(vectors: Sequence[Expr], indices: list[int]) -> Term:
    """The lanes of all vectors one after the other, picked by index."""
    return tirx.Shuffle(list(vectors), indices)


def maximum(left: Expr, right: Expr, lanes: int, unit: VectorUnit) -> Term:
    """The larger one; NaN where the left one is NaN."""
    if has_own_maximum(lanes, unit):
        return tirx.call_llvm_pure_intrin(vector_type(lanes), "llvm.maximum", left, right)
    left = Register(left, lanes).value
    return tirx.Select(left < right, right, left)


def minimum(left: Expr, right: Expr, lanes: int, unit: VectorUnit) -> Term:
    """The smaller one; NaN where the left one is NaN."""
    if has_own_maximum(lanes, unit):
        return tirx.call_llvm_pure_intrin(vector_type(lanes), "llvm.minimum", left, right)
    left = Register(left, lanes).value
    return tirx.Select(left > right, right, left)


def has_own_maximum(lanes: int, unit: VectorUnit) -> bool:
    """Whether LLVM's maximum, which is NaN where either value is, is one instruction: on NEON. On x86 a comparison and
    a selection in this order are one, whose second operand is the result where one is NaN.
    """
    return unit.isa.keeps_nan and lanes > 1


def as_index(value: Expr) -> Term:
    """A small stored integer as int32."""
    return tirx.Cast("int32", value)


class Register:
    """A mutable vector that lives in a machine register."""

    def __init__(self, value: Expr, lanes: int) -> None:
        self.lanes = lanes
        # No layout is what it gets anyway; TVM takes as long to find that out as for all the rest.
        self._buffer = T.alloc_buffer((1,), vector_type(lanes), scope="global", layout=None)
        self.set(value)

    @property
    def value(self) -> Term:
        return self._buffer[0]

    def lane(self, index: int) -> Term:
        """One lane as a scalar."""
        return self.value if self.lanes == 1 else tirx.Shuffle([self.value], [index])

    def set(self, value: Expr) -> None:
        T.buffer_store(self._buffer, value, [0])

    def multiply_add(self, left: Expr, right: Expr) -> None:
        """Add left * right; LLVM contracts it to one fused instruction."""
        self.set(self.value + left * right)


def pieces(count: int, lanes: int) -> list[int]:
    """Powers of two, none above `lanes`, that add up to count, largest first: 11 -> 8, 2, 1."""
    widths, width = [], lanes
    while count:
        if width > count:
            width //= 2
        else:
            widths.append(width)
            count -= width
    return widths


def sum_lanes(register: Register) -> Term:
    """The sum of all lanes, by halves."""
    return _by_halves(register, lambda low, high, _: low + high)


def largest_lane(register: Register, unit: VectorUnit) -> Term:
    """The largest lane; where one is NaN, it or another."""
    return _by_halves(register, lambda low, high, lanes: maximum(low, high, lanes, unit))


def _by_halves(register: Register, combine: Callable[[Term, Term, int], Term]) -> Term:
    while register.lanes > 1:
        half = register.lanes // 2
        low = shuffle([register.value], list(range(half)))
        high = shuffle([register.value], list(range(half, 2 * half)))
        register = Register(combine(low, high, half), half)
    return register.value


def concatenate(vectors: Sequence[Term], lanes: int) -> Term:
    """Vectors of `lanes` each, one after the other."""
    return vectors[0] if len(vectors) == 1 else shuffle(vectors, list(range(len(vectors) * lanes)))


def part(register: Register, first: int, lanes: int) -> Term:
    """`lanes` lanes of a register from `first` on."""
    if lanes == register.lanes:
        return register.value
    return shuffle([register.value], list(range(first, first + lanes)))


def transpose(vectors: list[Register]) -> list[Register]:
    """Four vectors as the rows of 4×4 matrices, one for every four lanes: their columns, by two rounds of shuffles."""
    lanes = vectors[0].lanes

    def merge(left: Register, right: Register, picks: list[int]) -> Register:
        """Lanes of each four, those of `right` numbered from 4 on."""
        indices = [quad + pick % 4 + pick // 4 * lanes for quad in range(0, lanes, 4) for pick in picks]
        return Register(shuffle([left.value, right.value], indices), lanes)

    low, high = [0, 4, 1, 5], [2, 6, 3, 7]
    first, second, third, fourth = vectors
    halves = [(merge(first, second, picks), merge(third, fourth, picks)) for picks in (low, high)]
    return [merge(left, right, picks) for left, right in halves for picks in ([0, 1, 4, 5], [2, 3, 6, 7])]


def fill(buffer: Buffer, start: Expr, count: int, value: float, lanes: int) -> None:
    """Write `value` to [start, start + count)."""
    vectors, rest = divmod(count, lanes)
    if vectors:
        with T.serial(0, vectors) as index:
            store(buffer, start + index * lanes, constant(value, lanes), lanes)
    position = vectors * lanes
    for width in pieces(rest, lanes):
        store(buffer, start + position, constant(value, width), width)
        position += width


def alloc_running_over(count: int, lanes: int) -> Buffer:
    """Scratch for `count` values whose last vector may run over the end.

    It reads zeros there, and what becomes of them is dropped. Memory that nobody wrote often holds denormal numbers
    (halves of addresses are), and a multiply-add of one takes a hundred times as long.
    """
    scratch = T.alloc_buffer((count + lanes,), "float32", scope="global")
    fill(scratch, count, lanes, 0.0, lanes)
    return scratch


def fill_between(scratch: Buffer, channels: int, stride: int, values: int, lanes: int, first: int = 0) -> None:
    """Zeros behind the `values` of each channel, the first of which begins at `first`: as alloc_running_over."""
    if stride > values:
        with T.serial(0, channels) as channel:
            fill(scratch, first + channel * stride + values, stride - values, 0.0, lanes)


def each_vector(count: int, lanes: int, emit: Callable[[Expr, int], None]) -> None:
    """Emit code for (start, width) of whole vectors, then of shorter ones for what is left; none overlap."""
    vectors, rest = divmod(count, lanes)
    if vectors:
        with T.serial(0, vectors) as index:
            emit(index * lanes, lanes)
    position = vectors * lanes
    for width in pieces(rest, lanes):
        emit(position, width)
        position += width


def each_strip(count: int, lanes: int, emit: Callable[[Expr, int], None]) -> None:
    """Emit code for (start, width) of the vectors that cover `count` values; the last may overlap the one before."""
    width = strip_width(count, lanes)
    strips, last = -(-count // width), count - width
    with T.serial(0, strips) as index:
        emit(index * width if count % width == 0 else tirx.min(index * width, last), width)


def strip_width(count: int, lanes: int) -> int:
    """The widest vector of at most `lanes` that fits into `count` values."""
    return min(lanes, 1 << (count.bit_length() - 1))
