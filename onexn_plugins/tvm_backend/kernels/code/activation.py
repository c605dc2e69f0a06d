"""Activations on vectors, fused into the store of a kernel's result.

Infinities and NaN become what ONNX's operators make of them: SiLU and GELU of minus infinity are NaN, as infinity times
zero is.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from tvm import tirx

from onexn_plugins.tvm_backend.kernels.code.expression import Expr, Term
from onexn_plugins.tvm_backend.kernels.code.vector import Register, constant, maximum, minimum, splat, vector_type
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Powers of two from the smallest normal float32 number to infinity, and how their exponent is stored.
_POWERS = (-126.0, 128.0)
_MANTISSA_BITS = 23
_DEGREE = 5  # leaves a relative error of 1e-7, about as much as float32 itself
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
        return constant(1, lanes) / _one_plus_exp(source, lanes, unit)
    if activation == "silu":
        return source / _one_plus_exp(source, lanes, unit)
    assert activation == "gelu"  # Epilogue accepts no other name
    return source / _one_plus_exp(_normal_logit(source, lanes, unit), lanes, unit)


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


def polynomial(coefficients: tuple[float, ...], value: Term, lanes: int) -> Term:
    """Of constant coefficients, lowest first, by Horner's scheme."""
    *others, highest = coefficients
    series = Register(constant(highest, lanes), lanes)
    for coefficient in reversed(others):
        series.set(series.value * value + constant(coefficient, lanes))
    return series.value


def _one_plus_exp(value: Term, lanes: int, unit: VectorUnit) -> Term:
    """1 + exp(-x); the C library's exp would be called lane by lane.

    exp(-x) = 2^n 2^f with n + f = -x / ln 2, |f| <= 1/2, a polynomial for 2^f, and n added to its exponent field. The
    multiply-adds are few because sums compete with them: rounding, clamping and adding run beside them on x86.
    """
    low, high = _POWERS
    power = value * constant(-1 / math.log(2.0), lanes)
    above = maximum(power, constant(low, lanes), lanes, unit)
    power = Register(minimum(above, constant(high, lanes), lanes, unit), lanes).value
    whole = Register(tirx.nearbyint(power), lanes).value
    fraction = Register(power - whole, lanes).value
    series = polynomial(_power_of_two_polynomial(), fraction, lanes)
    return constant(1, lanes) + times_power_of_two(series, whole, lanes)


@cache
def _power_of_two_polynomial() -> tuple[float, ...]:
    """Coefficients, lowest first, of 1 + f q(f), the relative error's least squares over the Chebyshev points of
    [-1/2, 1/2]: exactly 1 at 0, so that 2^128 is infinity and not NaN.
    """
    f = np.polynomial.chebyshev.chebpts1(1000) / 2
    q = np.polynomial.Polynomial.fit(f, np.expm1(f * math.log(2)) / f, _DEGREE - 1, w=np.abs(f) / np.exp2(f))
    return 1.0, *(float(value) for value in q.convert().coef)


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


def times_power_of_two(value: Term, power: Term, lanes: int) -> Term:
    """value * 2^power, for a value near 1 and a whole number held as float32."""
    integer = "int32" if lanes == 1 else f"int32x{lanes}"
    exponent = tirx.shift_left(tirx.Cast(integer, power), splat(tirx.IntImm("int32", _MANTISSA_BITS), lanes))
    return tirx.reinterpret(vector_type(lanes), tirx.reinterpret(integer, value) + exponent)
