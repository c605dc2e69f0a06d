"""Constant matrices times vectors in registers, with few operations: what Winograd's transforms consist of."""

from __future__ import annotations

import numpy as np

from onexn_plugins.tvm_backend.kernels.code.vector import Register, constant, shuffle


def transform(vertical: np.ndarray, horizontal: np.ndarray, values: list[Register]) -> list[list[Register]]:
    """The rows of vertical @ values @ horizontal.T, for values row by row."""
    width = horizontal.shape[1]
    columns = [combine(vertical, values[column::width]) for column in range(width)]
    return [combine(horizontal, list(row)) for row in zip(*columns, strict=True)]


def combine(matrix: np.ndarray, values: list[Register]) -> list[Register]:
    """matrix @ values; rows and columns that differ in signs alone, as those of opposite points, share their sums."""
    matrix, values = _paired_columns(matrix, values)
    found: dict[int, Register] = {}
    for index, other in _pairs(matrix):
        if other is None:
            found[index] = _sum(matrix[index], values)
            continue
        even = _sum((matrix[index] + matrix[other]) / 2, values)
        odd = _sum((matrix[index] - matrix[other]) / 2, values)
        found[index] = Register(even.value + odd.value, even.lanes)
        found[other] = Register(even.value - odd.value, even.lanes)
    return [found[index] for index in range(len(matrix))]


def interleaved(vectors: list[Register]) -> list[Register]:
    """The first lanes of all vectors (a power of two of them), then the second ones ..., in as many vectors."""
    if len(vectors) == 1:
        return vectors
    lanes = vectors[0].lanes
    order = [lane + lanes * side for lane in range(lanes) for side in range(2)]
    return [Register(shuffle([even.value, odd.value], half), lanes)
            for even, odd in zip(interleaved(vectors[::2]), interleaved(vectors[1::2]), strict=True)
            for half in (order[:lanes], order[lanes:])]


def _paired_columns(matrix: np.ndarray, values: list[Register]) -> tuple[np.ndarray, list[Register]]:
    """The same product with a sum and a difference of values in place of two whose columns differ in signs alone."""
    columns, combined = [], []
    for index, other in _pairs(matrix.T):
        first = matrix[:, index]
        if other is None:
            columns.append(first)
            combined.append(values[index])
            continue
        left, right, second = values[index], values[other], matrix[:, other]
        columns += [(first + second) / 2, (first - second) / 2]
        combined += [Register(left.value + right.value, left.lanes), Register(left.value - right.value, left.lanes)]
    return np.stack(columns, axis=1), combined


def _pairs(rows: np.ndarray) -> list[tuple[int, int | None]]:
    """(row, the other row that has the same magnitudes and some other sign, if any); every row once."""
    free, pairs = list(range(len(rows))), list[tuple[int, int | None]]()
    while free:
        index = free.pop(0)
        shares = [other for other in free if (abs(rows[other]) == abs(rows[index])).all()
                  and (rows[other] == rows[index]).any() and (rows[other] == -rows[index]).any()
                  and np.count_nonzero(rows[index]) > 1]
        if shares:
            free.remove(shares[0])
        pairs.append((index, shares[0] if shares else None))
    return pairs


def _sum(factors: np.ndarray, values: list[Register]) -> Register:
    """factors @ values; a factor of 1 comes first if there is one, as it costs nothing there."""
    lanes = values[0].lanes
    terms = sorted(((float(factor), value.value) for factor, value in zip(factors, values, strict=True) if factor),
                   key=lambda term: (term[0] != 1, term[0] == -1))
    factor, first = terms[0]
    total = first if factor == 1 else first * constant(factor, lanes)
    for factor, value in terms[1:]:
        if abs(factor) == 1:
            total = total + value if factor == 1 else total - value
        else:
            total = total + value * constant(factor, lanes)
    return Register(total, lanes)
