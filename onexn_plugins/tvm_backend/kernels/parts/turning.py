"""Rows become columns, four values of each at a time."""

from __future__ import annotations

from collections.abc import Callable

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import (
    Buffer,
    Expr,
    Register,
    concatenate,
    load,
    store,
    transpose,
)

# Values of a row that are turned at once: what a 128-bit part of a register holds.
QUAD = 4


def turn_rows(x: Buffer, row_start: Callable[[int], Expr], features: int, columns: Buffer, place: Expr, stride: int,
              lanes: int, factors: tuple[Expr, ...] = ()) -> None:
    """Write `lanes` rows of at least four features so that feature f of all of them begins at columns[place + f *
    stride].

    Args:
        x: where the rows lie.
        row_start: where the first feature of each of them lies.
        features: values of a row, side by side.
        columns: where they become columns.
        place: of the first one's first feature.
        stride: from one feature to the next.
        lanes: how many rows, a multiple of four.
        factors: vectors that the columns are multiplied by, one after the other.
    """

    def turn(first: Expr) -> None:
        def quads(number: int) -> Register:
            """Of every fourth row."""
            loaded = [load(x, row_start(other) + first, QUAD) for other in range(number, lanes, QUAD)]
            return Register(concatenate(loaded, QUAD), lanes)

        for number, column in enumerate(transpose([quads(number) for number in range(QUAD)])):
            value = column.value
            for factor in factors:
                value = value * factor
            store(columns, place + (first + number) * stride, value, lanes)

    with T.serial(0, features // QUAD) as index:
        turn(index * QUAD)
    if features % QUAD:
        turn(features - QUAD)
