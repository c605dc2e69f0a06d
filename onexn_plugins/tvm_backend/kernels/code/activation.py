"""Activations on vectors, fused into the store of a kernel's result.

Infinities and NaN become what ONNX's operators make of them: SiLU and GELU of minus infinity are NaN, as infinity times
zero is.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from tvm import tirx

from onexn_plugins.tvm_backend.kernels.code.exponential import one_plus_exponential, polynomial
from onexn_plugins.tvm_backend.kernels.code.expression import Expr, Term
from onexn_plugins.tvm_backend.kernels.code.vector import Register, constant, maximum, minimum
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Up to where the normal distribution's logit is fitted, and by a polynomial of which degree in x^2.
_NORMAL_RANGE, _NORMAL_DEGREE = 5.0, 7


def activate(value: Expr, activation: str | None, lanes: int, unit: VectorUnit) -> Expr:
    """The activation of a vector; None leaves it as it is."""
    if activation is None:
        return value
    source = Register(value, lanes).value
    if activation == "relu":
        # NEON compares with 0 without a register of zeros, which its maximum would take from the sums: ResNet-18 on
        # Cortex-A7 would run up to 7 % more instructions.
        return tirx.Select(source < constant(0, lanes), constant(0, lanes), source)
    if activation == "relu6":
        return _relu6(source, lanes, unit)
    if activation == "hardsigmoid":
        return _hard_sigmoid(source, lanes, unit)
    if activation == "hardswish":
        return source * _hard_sigmoid(source, lanes, unit)
    if activation == "sigmoid":
        return constant(1, lanes) / one_plus_exponential(source, lanes, unit)
    if activation == "silu":
        return source / one_plus_exponential(source, lanes, unit)
    assert activation == "gelu"  # Epilogue accepts no other name
    return source / one_plus_exponential(_normal_logit(source, lanes, unit), lanes, unit)


def _relu6(value: Term, lanes: int, unit: VectorUnit) -> Term:
    return minimum(maximum(value, constant(0, lanes), lanes, unit), constant(6, lanes), lanes, unit)


def _hard_sigmoid(value: Term, lanes: int, unit: VectorUnit) -> Term:
    return _relu6(value + constant(3, lanes), lanes, unit) * constant(1 / 6, lanes)


def _normal_logit(value: Term, lanes: int, unit: VectorUnit) -> Term:
    """log(P / (1 - P)) for the probability P that a normal variable is below x; GELU(x) = x P = x / (1 + exp(-this)).

    It is x times a polynomial of x^2. Beyond where that was fitted it rises with x, where P is 0 or 1 to float32.
    """
    square = Register(minimum(value * value, constant(_NORMAL_RANGE**2, lanes), lanes, unit), lanes).value
    return value * polynomial(_normal_logit_polynomial(), square, lanes)


@cache
def _normal_logit_polynomial() -> tuple[float, ...]:
    """Coefficients, lowest first, of the logit over x as a polynomial of x^2; GELU is 8e-7 off at most."""

    def logit_over_x(square: np.ndarray) -> np.ndarray:
        x = np.sqrt(square)
        below, above = (np.array([math.erfc(sign * each / math.sqrt(2)) for each in x]) for sign in (-1, 1))
        return np.log(below / above) / x

    domain = (0, _NORMAL_RANGE**2)
    interpolated = np.polynomial.Chebyshev.interpolate(logit_over_x, _NORMAL_DEGREE, domain=domain)
    return tuple(float(value) for value in interpolated.convert(kind=np.polynomial.Polynomial).coef)
