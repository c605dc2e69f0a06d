"""The normal form of a chain of operators is the function that ONNX's reference computes, however wide one looks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onexn_plugins.tvm_backend.planning.fusion.activations import _KNOWN, normal_form
from onexn_plugins.tvm_backend.planning.fusion.functions import Function, Unknown, X
from onexn_plugins.tvm_backend.reading.graph import ELEMENTWISE, Node

NUMBERS = (-6.0, -3.0, -1.0, 0.0, 0.5, 1.0, 1 / 6, 0.2, math.sqrt(2), 1.702, 3.0, 6.0, 100.0, 255.0, 1e6)
WIDE = np.concatenate([np.linspace(-9, 9, 181), *(sign * np.geomspace(10, 1e8, 60) for sign in (-1, 1))])
SMOOTH = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "exp": np.exp, "erf": np.vectorize(math.erf),
}
Operand = int | float  # the position of an earlier value, or a number


@st.composite
def chains(draw: st.DrawFn) -> list[tuple[str, list[Operand]]]:
    """Operators on x (value 0), numbers and each other's results."""
    chain: list[tuple[str, list[Operand]]] = []
    for made in range(1, draw(st.integers(1, 6)) + 1):
        op = draw(st.sampled_from(sorted(ELEMENTWISE - {"Gelu"})))
        value = st.integers(max(0, made - 2), made - 1)
        operands: list[Operand] = [draw(value)]
        if op in ("Add", "Sub", "Mul", "Div", "Max", "Min"):
            operands.append(draw(value | st.sampled_from(NUMBERS)))
            operands = operands if draw(st.booleans()) else operands[::-1]
        elif op == "Clip":
            operands += sorted(draw(st.tuples(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS))))
        chain.append((op, operands))
    return chain


def reference(chain: list[tuple[str, list[Operand]]], x: np.ndarray) -> list[np.ndarray]:
    """What ONNX's reference makes of float64, operator by operator."""
    numbers: dict[str, float] = {}

    def name(operand: Operand) -> str:
        if isinstance(operand, int):
            return f"v{operand}"
        numbers[f"c{operand}"] = operand
        return f"c{operand}"

    nodes = [helper.make_node(op, [name(operand) for operand in operands], [f"v{place}"])
             for place, (op, operands) in enumerate(chain, 1)]
    double = TensorProto.DOUBLE
    graph = helper.make_graph(nodes, "chain", [helper.make_tensor_value_info("v0", double, x.shape)],
                              [helper.make_tensor_value_info(made.output[0], double, x.shape) for made in nodes],
                              [helper.make_tensor(key, double, (), [value]) for key, value in numbers.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    with np.errstate(all="ignore"):
        return [np.broadcast_to(value, x.shape) for value in ReferenceEvaluator(model).run(None, {"v0": x})]


def formal(chain: list[tuple[str, list[Operand]]]) -> Function:
    values = [X]
    for op, operands in chain:
        known = [values[operand] if isinstance(operand, int) else operand for operand in operands]
        values.append(normal_form(Node.make(op, [""], [""]), known))
    return values[-1]


def evaluate(function: Function, x: np.ndarray) -> np.ndarray:
    return np.sum(list(summands(function, x, signed=True)) or [np.zeros_like(x)], axis=0)


def evaluate_sizes(function: Function, x: np.ndarray) -> np.ndarray:
    """The sum of the absolute values of all summands."""
    return np.sum(list(summands(function, x, signed=False)) or [np.zeros_like(x)], axis=0)


def summands(function: Function, x: np.ndarray, *, signed: bool) -> Iterator[np.ndarray]:
    keep = (lambda value: value) if signed else np.abs
    for smooth, piecewise in function.terms.items():
        factor = 1.0 if smooth is None else SMOOTH[smooth[0]](float(smooth[1]) * x)
        places = np.searchsorted([float(point) for point in piecewise.breaks], x)
        for place, piece in enumerate(piecewise.pieces):
            for power, coefficient in enumerate(piece):
                yield keep(np.where(places == place, float(coefficient) * x**power, 0) * factor)


@given(chains())
def test_the_normal_form_is_what_the_operators_compute(chain: list[tuple[str, list[Operand]]]) -> None:
    try:
        function = formal(chain)
    except Unknown:
        return
    with np.errstate(all="ignore"):
        values, result = reference(chain, WIDE), evaluate(function, WIDE)
        # Float64 loses digits where large values cancel, and the reference computes erf in float32.
        size = np.max(np.abs([WIDE, *values]), axis=0) + np.abs(evaluate_sizes(function, WIDE))
        close = np.abs(values[-1] - result) <= 1e-6 * size
    assert (close | ~np.isfinite(size) | ~np.isfinite(result)).all()


@given(chains())
def test_what_is_taken_for_a_known_activation_is_that_far_out_as_well(chain: list[tuple[str, list[Operand]]]) -> None:
    try:
        function = formal(chain)
    except Unknown:
        return
    for expected, _ in _KNOWN.values():
        if function.is_near(expected):
            with np.errstate(all="ignore"):
                values, sure = reference(chain, WIDE), evaluate(expected, WIDE)
                size = np.max(np.abs([WIDE, *values]), axis=0)
                close = np.abs(values[-1] - sure) <= 1e-5 * np.abs(sure) + 1e-5 + 1e-9 * size
            assert (close | ~np.isfinite(size)).all()


@pytest.mark.parametrize("bound", [7.0, 80.0, 100.0, 255.0, 65504.0, 1e30])
def test_a_bound_far_out_is_a_bound(bound: float) -> None:
    relu = X.maximum(Function.constant(0))
    assert not relu.minimum(Function.constant(bound)).is_near(relu)
    assert Fraction(bound) in relu.minimum(Function.constant(bound)).terms[None].breaks


def test_a_small_slope_is_no_rounding() -> None:
    relu = X.maximum(Function.constant(0))
    assert not (relu + X * Function.constant(1e-9)).is_near(relu)
    assert (relu * Function.constant(float(np.float32(1 / 3)) * 3)).is_near(relu)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_has_no_normal_form(value: float) -> None:
    with pytest.raises(Unknown):
        Function.constant(value)
