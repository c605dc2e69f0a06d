"""Activations on vectors, fused into the store of a kernel's result."""

from __future__ import annotations

import math

from tvm import tirx

from onexn_plugins.tvm_backend.kernels.vector import Expr, Register, constant, maximum, minimum, splat, vector_type

# exp(x) leaves the normal float32 numbers outside this range.
_EXP_RANGE = (-87.0, 88.0)
# ln 2 in two parts: the first has few enough bits that a multiple of it is exact (Cody and Waite's reduction).
_LN2_HIGH, _LN2_LOW = 0.693359375, math.log(2.0) - 0.693359375
_TAYLOR_DEGREE = 7  # |x| <= ln(2) / 2: the next term is below 6e-9
_EXPONENT_BIAS, _MANTISSA_BITS = 127, 23


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
        return _sigmoid(source, lanes)
    assert activation == "silu"  # Epilogue accepts no other name
    return source * _sigmoid(source, lanes)


def _relu6(value: Expr, lanes: int) -> Expr:
    return minimum(maximum(value, constant(0, lanes)), constant(6, lanes))


def _hard_sigmoid(value: Expr, lanes: int) -> Expr:
    return _relu6(value + constant(3, lanes), lanes) * constant(1 / 6, lanes)


def _sigmoid(value: Expr, lanes: int) -> Expr:
    one = constant(1, lanes)
    return one / (one + _exp(constant(0, lanes) - value, lanes))


def _exp(value: Expr, lanes: int) -> Expr:
    """exp(x) = 2^n exp(r) with x = n ln 2 + r, |r| <= ln(2) / 2, and a Taylor polynomial for exp(r).

    The C library's exp would be called lane by lane.
    """
    low, high = _EXP_RANGE
    argument = Register(minimum(maximum(value, constant(low, lanes)), constant(high, lanes)), lanes).value
    power = Register(tirx.floor(argument * constant(1 / math.log(2.0), lanes) + constant(0.5, lanes)), lanes).value
    reduced = argument - power * constant(_LN2_HIGH, lanes) - power * constant(_LN2_LOW, lanes)
    reduced = Register(reduced, lanes).value
    series = Register(constant(1 / math.factorial(_TAYLOR_DEGREE), lanes), lanes)
    for degree in reversed(range(_TAYLOR_DEGREE)):
        series.set(series.value * reduced + constant(1 / math.factorial(degree), lanes))
    return series.value * _power_of_two(power, lanes)


def _power_of_two(power: Expr, lanes: int) -> Expr:
    """2^n of a whole number held as float32, by writing the exponent field."""
    integer = "int32" if lanes == 1 else f"int32x{lanes}"
    biased = tirx.Cast(integer, power) + splat(tirx.IntImm("int32", _EXPONENT_BIAS), lanes)
    bits = tirx.shift_left(biased, splat(tirx.IntImm("int32", _MANTISSA_BITS), lanes))
    return tirx.reinterpret(vector_type(lanes), bits)
