"""The steps of an LSTM, GRU or RNN, one after the other, on what reading made of it (reading/expansion/recurrent.py).

A loop, so that a thousand steps compile as fast as one. Each step multiplies one row by the recurrent weights; those
lie with the gates innermost, where the compiler vectorises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax, tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr
from onexn_plugins.tvm_backend.lowering.operators.activations import Activation, activations, clipped
from onexn_plugins.tvm_backend.lowering.operators.function import call
from onexn_plugins.tvm_backend.reading.graph import Graph, Node, TensorSpec

ACTIVATIONS_OF = {"LSTM": 3, "GRU": 2, "RNN": 1}


@dataclass(frozen=True)
class Cell:
    """What one direction computes in each step.

    Attributes:
        kind: "LSTM", "GRU" or "RNN".
        steps, batch, directions, hidden: sizes.
        gates: how many rows of `hidden` each step computes.
        direction: which one of the directions this is.
        backwards: from the last step to the first.
        functions: its activations, in ONNX's order; those of gates clip what they are given.
        dtype: of every value.
    """

    kind: str
    steps: int
    batch: int
    directions: int
    hidden: int
    gates: int
    direction: int
    backwards: bool
    functions: tuple[Activation, ...]
    input_forget: bool
    linear_before_reset: bool
    dtype: str

    @property
    def width(self) -> int:
        return self.gates * self.hidden

    def state(self, row: Expr, unit: Expr) -> Expr:
        """Where that unit's state lies in [directions, batch, hidden]."""
        return (self.direction * self.batch + row) * self.hidden + unit


@dataclass(frozen=True)
class Tensors:
    """The buffers of a recurrence; None for what the file leaves out."""

    projected: Buffer
    weights: Buffer
    own_bias: Buffer | None
    lengths: Buffer | None
    first_h: Buffer | None
    first_c: Buffer | None
    peepholes: Buffer | None
    y: Buffer
    h: Buffer
    c: Buffer


def recurrence(builder: relax.BlockBuilder, graph: Graph, node: Node,
               inputs: list[relax.Expr]) -> list[relax.Expr]:
    given = [value is not None for value in inputs]
    cells = _cells(graph, node)
    specs = _specs(cells[0], graph.dtype(node.inputs[0]))

    def body(*buffers: Buffer) -> None:
        waiting = iter(buffers)
        read: list[Any] = [next(waiting) if present else None for present in given]
        for cell in cells:
            _write(cell, Tensors(*read, *buffers[-3:]))

    return call(builder, node.attributes["kind"].decode().lower(), body,
                [value for value in inputs if value is not None], specs)


def _cells(graph: Graph, node: Node) -> list[Cell]:
    steps, batch, _ = graph.shape(node.inputs[0])
    directions, hidden, width = graph.shape(node.inputs[1])
    kind, direction = node.text("kind", ""), node.text("direction", "")
    names = [name.decode() for name in node.attributes["activations"]]
    if len(names) != directions * ACTIVATIONS_OF[kind]:
        raise OneXNError(f"{kind} {node.name!r}", f"has {len(names)} activations for {directions} directions",
                         f"Name {ACTIVATIONS_OF[kind]} for each direction")
    functions = activations(f"{kind} {node.name!r}", names, node.attributes.get("activation_alpha", []),
                            node.attributes.get("activation_beta", []))
    per_cell = ACTIVATIONS_OF[kind]
    # Gates are clipped; what an LSTM emits of its cell's state is not, as in onnxruntime.
    functions = [function if kind == "LSTM" and place % per_cell == 2 else clipped(function, node.attributes["clip"])
                 for place, function in enumerate(functions)]
    return [Cell(kind, steps, batch, directions, hidden, width // hidden, index,
                 direction == "reverse" or index == 1, tuple(functions[index * per_cell:(index + 1) * per_cell]),
                 bool(node.attributes["input_forget"]), bool(node.attributes["linear_before_reset"]),
                 str(graph.dtype(node.inputs[0]))) for index in range(directions)]


def _specs(cell: Cell, dtype: object) -> list[TensorSpec]:
    state = (cell.directions, cell.batch, cell.hidden)
    return [TensorSpec(shape, dtype) for shape in ((cell.steps, *state), state, state)]  # type: ignore[arg-type]


def _write(cell: Cell, tensors: Tensors) -> None:
    """One direction: first states, then every row of every step."""
    sums = T.alloc_buffer((cell.width,), cell.dtype, scope="global")
    scratch = T.alloc_buffer((2 * cell.hidden,), cell.dtype, scope="global")
    with T.serial(0, cell.batch) as row, T.serial(0, cell.hidden) as unit:
        at = cell.state(row, unit)
        for state, first in ((tensors.h, tensors.first_h), (tensors.c, tensors.first_c)):
            T.buffer_store(state, tirx.const(0, cell.dtype) if first is None else first[at], [at])
    with T.serial(0, cell.steps) as count, T.serial(0, cell.batch) as row:
        if tensors.lengths is None:
            _step(cell, tensors, sums, scratch, cell.steps - 1 - count if cell.backwards else count, row)
            return
        # More steps than there are would be read behind the input.
        length = tirx.min(T.cast(tensors.lengths[row], "int32"), cell.steps)
        with T.If(count < length):
            with T.Then():
                _step(cell, tensors, sums, scratch, length - 1 - count if cell.backwards else count, row)
            with T.Else(), T.serial(0, cell.hidden) as unit:
                T.buffer_store(tensors.y, tirx.const(0, cell.dtype), [_result(cell, count, row, unit)])


def _step(cell: Cell, tensors: Tensors, sums: Buffer, scratch: Buffer, step: Expr, row: Expr) -> None:
    at = ((step * cell.batch + row) * cell.directions + cell.direction) * cell.width
    with T.serial(0, cell.width) as gate:
        T.buffer_store(sums, tensors.projected[at + gate], [gate])
    {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}[cell.kind](cell, tensors, sums, scratch, row)
    with T.serial(0, cell.hidden) as unit:
        T.buffer_store(tensors.y, tensors.h[cell.state(row, unit)], [_result(cell, step, row, unit)])


def _result(cell: Cell, step: Expr, row: Expr, unit: Expr) -> Expr:
    return ((step * cell.directions + cell.direction) * cell.batch + row) * cell.hidden + unit


def _multiply(cell: Cell, tensors: Tensors, values: Callable[[Expr], Expr], into: Buffer, start: int,
              gates: Sequence[int]) -> None:
    """Add values [hidden] times the weights of these gates to `into`, from `start` on."""
    first, width = gates[0] * cell.hidden, len(gates) * cell.hidden
    with T.serial(0, cell.hidden) as source:
        value = T.bind(values(source))
        with T.serial(0, width) as gate:
            weight = tensors.weights[(cell.direction * cell.hidden + source) * cell.width + first + gate]
            T.buffer_store(into, into[start + gate] + value * weight, [start + gate])


def _lstm(cell: Cell, tensors: Tensors, sums: Buffer, _scratch: Buffer, row: Expr) -> None:
    """Gates in the order input, output, forget, cell."""
    gate, squash, emit = cell.functions
    hidden, peepholes = cell.hidden, tensors.peepholes
    _multiply(cell, tensors, lambda unit: tensors.h[cell.state(row, unit)], sums, 0, range(4))

    def peek(number: int, unit: Expr, state: Expr) -> Expr:
        if peepholes is None:
            return tirx.const(0, cell.dtype)
        return peepholes[(cell.direction * 3 + number) * hidden + unit] * state

    with T.serial(0, hidden) as unit:
        at = cell.state(row, unit)
        before = T.bind(tensors.c[at])
        taken = T.bind(gate(sums[unit] + peek(0, unit, before)))
        kept = T.bind(gate(sums[2 * hidden + unit] + peek(2, unit, before))
                      if not cell.input_forget else tirx.const(1, cell.dtype) - taken)
        now = T.bind(kept * before + taken * squash(sums[3 * hidden + unit]))
        T.buffer_store(tensors.c, now, [at])
        T.buffer_store(tensors.h, gate(sums[hidden + unit] + peek(1, unit, now)) * emit(now), [at])


def _gru(cell: Cell, tensors: Tensors, sums: Buffer, scratch: Buffer, row: Expr) -> None:
    """Gates in the order update, reset, hidden."""
    gate, squash = cell.functions
    hidden = cell.hidden
    _multiply(cell, tensors, lambda unit: tensors.h[cell.state(row, unit)], sums, 0, range(2))
    with T.serial(0, hidden) as unit:  # what the hidden gate reads of the state, and its sum
        reset = gate(sums[hidden + unit])
        bias = tirx.const(0, cell.dtype)
        if cell.linear_before_reset:
            own = bias if tensors.own_bias is None else tensors.own_bias[cell.direction * hidden + unit]
            T.buffer_store(scratch, tensors.h[cell.state(row, unit)], [unit])
            T.buffer_store(scratch, own, [hidden + unit])
        else:
            T.buffer_store(scratch, reset * tensors.h[cell.state(row, unit)], [unit])
            T.buffer_store(scratch, bias, [hidden + unit])
    _multiply(cell, tensors, lambda unit: scratch[unit], scratch, hidden, [2])
    with T.serial(0, hidden) as unit:
        at, state = cell.state(row, unit), scratch[hidden + unit]
        if cell.linear_before_reset:
            state = gate(sums[hidden + unit]) * state
        update = T.bind(gate(sums[unit]))
        new = squash(sums[2 * hidden + unit] + state)
        T.buffer_store(tensors.h, (tirx.const(1, cell.dtype) - update) * new + update * tensors.h[at], [at])


def _rnn(cell: Cell, tensors: Tensors, sums: Buffer, _scratch: Buffer, row: Expr) -> None:
    _multiply(cell, tensors, lambda unit: tensors.h[cell.state(row, unit)], sums, 0, [0])
    with T.serial(0, cell.hidden) as unit:
        T.buffer_store(tensors.h, cell.functions[0](sums[unit]), [cell.state(row, unit)])
