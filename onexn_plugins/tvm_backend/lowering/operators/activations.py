"""The activations that ONNX lets an LSTM, GRU or RNN name, on one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tvm import tirx

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.kernels.code.vector import Expr

Activation = Callable[[Expr], Expr]
# Name -> (function of x, alpha, beta; alpha and beta where the file gives none).
_FUNCTIONS: dict[str, tuple[Callable[[Expr, float, float], Expr], tuple[float, ...]]] = {
    "Affine": (lambda x, a, b: x * _like(x, a) + _like(x, b), (1.0, 0.0)),
    "Elu": (lambda x, a, b: tirx.Select(x < _like(x, 0), (tirx.exp(x) - _like(x, 1)) * _like(x, a), x), (1.0,)),
    "HardSigmoid": (lambda x, a, b: _between(x * _like(x, a) + _like(x, b), 0, 1), (0.2, 0.5)),
    "LeakyRelu": (lambda x, a, b: tirx.Select(x < _like(x, 0), x * _like(x, a), x), (0.01,)),
    "Relu": (lambda x, a, b: tirx.Select(x < _like(x, 0), _like(x, 0), x), ()),
    "ScaledTanh": (lambda x, a, b: tirx.tanh(x * _like(x, b)) * _like(x, a), (1.0, 1.0)),
    "Sigmoid": (lambda x, a, b: tirx.sigmoid(x), ()),
    "Softplus": (lambda x, a, b: tirx.max(x, _like(x, 0)) + tirx.log(tirx.exp(-tirx.abs(x)) + _like(x, 1)), ()),
    "Softsign": (lambda x, a, b: x / (tirx.abs(x) + _like(x, 1)), ()),
    "Tanh": (lambda x, a, b: tirx.tanh(x), ()),
    "ThresholdedRelu": (lambda x, a, b: tirx.Select(x > _like(x, a), x, _like(x, 0)), (1.0,)),
}


# Of those the states stay small whatever the input.
BOUNDED = frozenset({"HardSigmoid", "ScaledTanh", "Sigmoid", "Softsign", "Tanh"})


def activations(label: str, names: Sequence[str], alphas: Sequence[float],
                betas: Sequence[float]) -> list[Activation]:
    """One function per name; those that have parameters take the next of them, as ONNX says.

    Raises:
        OneXNError: a name is unknown.
    """
    known = {name.lower(): function for name, function in _FUNCTIONS.items()}
    waiting = iter(alphas), iter(betas)
    found: list[Activation] = []
    for name in names:
        if name.lower() not in known:
            raise OneXNError(label, f"its activation {name!r} is unknown", f"Use one of {', '.join(_FUNCTIONS)}")
        function, defaults = known[name.lower()]
        alpha, beta = [next(values, default) for values, default in zip(waiting, defaults, strict=False)] + [0.0] * (
            2 - len(defaults))
        found.append(partial(_with, function, alpha, beta))
    return found


def clipped(function: Activation, clip: float) -> Activation:
    """The function of values between -clip and clip; 0 is no bound."""
    if clip <= 0:
        return function
    return lambda x: function(_between(x, -clip, clip))


def _between(x: Expr, low: float, high: float) -> Expr:
    """x, or the bound that it is beyond; NaN is beyond none."""
    return tirx.Select(x > _like(x, high), _like(x, high), tirx.Select(x < _like(x, low), _like(x, low), x))


def _with(function: Callable[[Expr, float, float], Expr], alpha: float, beta: float, x: Expr) -> Expr:
    return function(x, alpha, beta)


def _like(x: Any, value: float) -> Expr:
    return tirx.const(value, str(x.ty.dtype))
