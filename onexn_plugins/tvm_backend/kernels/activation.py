"""Activations on vectors, fused into the store of a kernel's result."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from tvm import tirx

from onexn_plugins.tvm_backend.kernels.vector import Expr, Register, constant, maximum, minimum, splat, vector_type

# Powers of two that are normal float32 numbers, and how their exponent is stored.
_POWERS = (-126.0, 127.0)
_MANTISSA_BITS = 23
_DEGREE = 5  # leaves a relative error of 1e-7, about as much as float32 itself


def activate(value: Expr, activation: str | None, lanes: int) -> Expr:
    """The activation of a vector; None leaves it as it is."""
    if activation is None:
        return value
    source = Register(value, lanes).value
    if activation == "relu":
        return maximum(source, constant(0, lanes))
    if activation == "relu6":
        return _relu6(source, lanes)
    if activation == "hardsigmoid":
        return _hard_sigmoid(source, lanes)
    if activation == "hardswish":
        return source * _hard_sigmoid(source, lanes)
    if activation == "sigmoid":
        return constant(1, lanes) / _one_plus_exp(source, lanes)
    assert activation == "silu"  # Epilogue accepts no other name
    return source / _one_plus_exp(source, lanes)


def _relu6(value: Expr, lanes: int) -> Expr:
    return minimum(maximum(value, constant(0, lanes)), constant(6, lanes))


def _hard_sigmoid(value: Expr, lanes: int) -> Expr:
    return _relu6(value + constant(3, lanes), lanes) * constant(1 / 6, lanes)


def _one_plus_exp(value: Expr, lanes: int) -> Expr:
    """1 + exp(-x); the C library's exp would be called lane by lane.

    exp(-x) = 2^n 2^f with n + f = -x / ln 2, |f| <= 1/2, a polynomial for 2^f, and n added to its exponent field. The
    multiply-adds are few because sums compete with them: rounding, clamping and adding run beside them on x86.
    """
    low, high = _POWERS
    power = value * constant(-1 / math.log(2.0), lanes)
    power = Register(minimum(maximum(power, constant(low, lanes)), constant(high, lanes)), lanes).value
    whole = Register(tirx.nearbyint(power), lanes).value
    fraction = Register(power - whole, lanes).value
    highest, *others = reversed(_power_of_two_polynomial())
    series = Register(constant(highest, lanes), lanes)
    for coefficient in others:
        series.set(series.value * fraction + constant(coefficient, lanes))
    return constant(1, lanes) + _times_power_of_two(series.value, whole, lanes)


@cache
def _power_of_two_polynomial() -> tuple[float, ...]:
    """Coefficients, lowest first, that interpolate 2^f at the Chebyshev points of [-1/2, 1/2]."""
    interpolated = np.polynomial.Chebyshev.interpolate(np.exp2, _DEGREE, domain=(-0.5, 0.5))
    return tuple(float(value) for value in interpolated.convert(kind=np.polynomial.Polynomial).coef)


def _times_power_of_two(value: Expr, power: Expr, lanes: int) -> Expr:
    """value * 2^power, for a value near 1 and a whole number held as float32."""
    integer = "int32" if lanes == 1 else f"int32x{lanes}"
    exponent = tirx.shift_left(tirx.Cast(integer, power), splat(tirx.IntImm("int32", _MANTISSA_BITS), lanes))
    return tirx.reinterpret(vector_type(lanes), tirx.reinterpret(integer, value) + exponent)
