"""exp(x) of vectors, as softmax needs it: the C library's would be called lane by lane."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from tvm import tirx

from onexn_plugins.tvm_backend.kernels.code.activation import polynomial, times_power_of_two
from onexn_plugins.tvm_backend.kernels.code.expression import Expr, Term
from onexn_plugins.tvm_backend.kernels.code.vector import Register, constant, maximum
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# The smallest power of two that is a normal float32 number.
_LOWEST = -126.0
# ln 2 in two parts, the first of so few digits that its products with whole numbers are exact (Cody and Waite).
_LN2_HIGH = 0.693359375
_LN2_LOW = math.log(2.0) - _LN2_HIGH
_DEGREE = 6  # leaves a relative error of 6e-9, less than float32 has


def exponential(value: Expr, lanes: int, unit: VectorUnit) -> Term:
    """exp(x) where x <= 0; NaN of NaN, and 0 where the result would be no normal number.

    exp(x) = 2^n exp(f) with n the whole number next to x / ln 2, a polynomial for exp(f), and n added to the exponent.
    """
    x = Register(value, lanes).value
    power = Register(x * constant(1 / math.log(2.0), lanes), lanes).value
    whole = Register(tirx.nearbyint(maximum(power, constant(_LOWEST, lanes), lanes, unit)), lanes).value
    high = Register(x + whole * constant(-_LN2_HIGH, lanes), lanes).value
    fraction = Register(high + whole * constant(-_LN2_LOW, lanes), lanes).value
    found = times_power_of_two(polynomial(_coefficients(), fraction, lanes), whole, lanes)
    return tirx.Select(power < constant(_LOWEST, lanes), constant(0, lanes), found)


@cache
def _coefficients() -> tuple[float, ...]:
    """Lowest first, of the polynomial that interpolates exp at the Chebyshev points of [-ln 2 / 2, ln 2 / 2]."""
    domain = (-math.log(2.0) / 2, math.log(2.0) / 2)
    interpolated = np.polynomial.Chebyshev.interpolate(np.exp, _DEGREE, domain=domain)
    return tuple(float(value) for value in interpolated.convert(kind=np.polynomial.Polynomial).coef)
