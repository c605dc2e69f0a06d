"""exp(x) of vectors: the C library's would be called lane by lane.

exp(x) = 2^n 2^f with n + f = x / ln 2, n whole and |f| <= 1/2: 2^f by a polynomial, 2^n by its bits. A large number
added to x / ln 2 leaves no digits behind the point, so that n, and 127 more, stand in the lowest bits of the sum; moved
to where an exponent is they are 2^n, infinity for n = 128 and zero for n = -127. That is few instructions, because they
compete with the multiply-adds around them: softmax and SiLU take 0.70 and 0.86 of the time that rounding, converting
and adding to the exponent took on an Intel core with AVX-512.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from tvm import tirx

from onexn_plugins.tvm_backend.kernels.code.expression import Expr, Term
from onexn_plugins.tvm_backend.kernels.code.vector import (
    Register,
    constant,
    maximum,
    minimum,
    splat,
    vector_type,
)
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

_LN2 = math.log(2.0)
_MANTISSA_BITS, _BIAS = 23, 127
# Between 2^23 and 2^24 float32 numbers are whole; one and a half of the former may lose as much as it may gain.
_ROUNDING = 1.5 * 2**_MANTISSA_BITS + _BIAS
# The n whose powers of two are zero and infinity.
_ZERO, _INFINITY = -127, 128
_DEGREE = 5  # leaves a relative error of 1e-7, about as much as float32 itself


def exponential(value: Expr, lanes: int, unit: VectorUnit) -> Term:
    """exp(x) where x <= 0; NaN of NaN, and 0 where the result would be no normal number."""
    x = Register(maximum(value, constant(_ZERO * _LN2, lanes), lanes, unit), lanes).value
    series, power = _factors(x, 1 / _LN2, lanes)
    return series * power


def one_plus_exponential(value: Expr, lanes: int, unit: VectorUnit) -> Term:
    """1 + exp(-x); NaN of NaN, and infinity where exp(-x) is 2^127.5 or more."""
    above = maximum(value, constant(-_INFINITY * _LN2, lanes), lanes, unit)
    x = Register(minimum(above, constant(-_ZERO * _LN2, lanes), lanes, unit), lanes).value
    series, power = _factors(x, -1 / _LN2, lanes)
    return constant(1, lanes) + series * power


def polynomial(coefficients: tuple[float, ...], value: Term, lanes: int) -> Term:
    """Of constant coefficients, lowest first, by Horner's scheme."""
    *others, highest = coefficients
    series = Register(constant(highest, lanes), lanes)
    for coefficient in reversed(others):
        series.set(series.value * value + constant(coefficient, lanes))
    return series.value


def _factors(x: Term, scale: float, lanes: int) -> tuple[Term, Term]:
    """2^f and 2^n for n + f = scale x."""
    rounded = Register(x * constant(scale, lanes) + constant(_ROUNDING, lanes), lanes).value
    whole = Register(rounded - constant(_ROUNDING, lanes), lanes).value
    # Fused, the product keeps all its digits.
    fraction = Register(x * constant(scale, lanes) - whole, lanes).value
    return polynomial(_power_of_two(), fraction, lanes), _moved_to_exponent(rounded, lanes)


def _moved_to_exponent(value: Term, lanes: int) -> Term:
    """The lowest eight bits of float32 numbers as the exponents of others."""
    integer = "int32" if lanes == 1 else f"int32x{lanes}"
    bits = splat(tirx.IntImm("int32", _MANTISSA_BITS), lanes)
    return tirx.reinterpret(vector_type(lanes), tirx.shift_left(tirx.reinterpret(integer, value), bits))


@cache
def _power_of_two() -> tuple[float, ...]:
    """Coefficients, lowest first, of 1 + f q(f), the relative error's least squares over the Chebyshev points of
    [-1/2, 1/2].
    """
    f = np.polynomial.chebyshev.chebpts1(1000) / 2
    q = np.polynomial.Polynomial.fit(f, np.expm1(f * _LN2) / f, _DEGREE - 1, w=np.abs(f) / np.exp2(f))
    return 1.0, *(float(value) for value in q.convert().coef)
