"""The checks that all kernels' tests rest on: an access outside of its buffer raises, one at its ends does not."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import constant, load, store
from tests.tvm_backend.kernels.emitted import emitted


@pytest.mark.parametrize(("first", "inside"), [(0, True), (8, True), (9, False), (-1, False)])
def test_vectors_stay_inside_what_they_read(first, inside):
    x = np.arange(12, dtype=np.float32)

    def emit(y, buffer):
        with T.serial(0, 1) as turn:
            store(y, 0, load(buffer, first + turn, 4), 4)

    if inside:
        np.testing.assert_array_equal(emitted(4, emit, x), x[first : first + 4])
        return
    with pytest.raises(IndexError, match="outside of a buffer of"):
        emitted(4, emit, x)


@pytest.mark.parametrize(("last", "inside"), [(3, True), (4, False)])
def test_and_inside_what_they_write(last, inside):
    def emit(y):
        with T.serial(0, last) as turn:
            store(y, turn * 4, constant(1.0, 4), 4)

    if inside:
        np.testing.assert_array_equal(emitted(12, emit), 1)
        return
    with pytest.raises(IndexError, match="outside of a buffer of"):
        emitted(12, emit)
