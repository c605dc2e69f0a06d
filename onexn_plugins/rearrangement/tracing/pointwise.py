"""Functions that treat every element, or every map, by itself: activations, sums and products, pooling, reductions."""

from __future__ import annotations

import torch
from torch import Tensor

from onexn_plugins.rearrangement.tracing.facts import frozen, squeeze_constant, varying
from onexn_plugins.rearrangement.tracing.tracer import Call, Tracer, rule

ACTIVATIONS = [
    "relu", "relu6", "sigmoid", "tanh", "gelu", "silu", "hardswish", "hardsigmoid", "leaky_relu", "elu", "celu",
    "selu", "mish", "hardtanh", "softplus", "softsign", "logsigmoid", "log_sigmoid", "threshold", "rrelu",
    "hardshrink", "softshrink", "tanhshrink", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
    "feature_dropout", "feature_alpha_dropout", "clamp", "clip", "clamp_min", "clamp_max", "exp", "expm1", "log",
    "log1p", "log2", "log10", "sqrt", "rsqrt", "square", "abs", "neg", "sign", "reciprocal", "erf", "sin", "cos",
    "floor", "ceil", "round", "trunc", "nan_to_num", "isnan", "isinf", "isfinite", "logical_not", "bitwise_not",
    "zero", "fill",
]
ARITHMETIC = [
    "add", "sub", "mul", "div", "true_divide", "floor_divide", "multiply", "divide", "subtract", "pow", "maximum",
    "minimum", "fmax", "fmin", "where", "addcmul", "addcdiv", "lerp", "masked_fill", "atan2", "fmod", "remainder",
    "logical_and", "logical_or", "logical_xor", "eq", "ne", "lt", "le", "gt", "ge", "rsub", "hypot", "xlogy",
    "float_power",
]
OPERATORS = [
    "__add__", "__radd__", "__iadd__", "__sub__", "__rsub__", "__isub__", "__mul__", "__rmul__", "__imul__",
    "__truediv__", "__rtruediv__", "__itruediv__", "__floordiv__", "__pow__", "__rpow__", "__ipow__", "__neg__",
    "__abs__", "__mod__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__and__", "__or__", "__xor__",
    "__invert__", "__rdiv__", "__div__", "__idiv__",
]
IN_PLACE = [f"{name}_" for name in (*ACTIVATIONS, *ARITHMETIC) if name != "where"]


@rule(*ACTIVATIONS, *ARITHMETIC, *OPERATORS, *IN_PLACE)
def pointwise(tracer: Tracer, call: Call) -> None:
    """Operands are broadcast; elements that meet move together."""
    operands = call.tensors()
    shape = call.result.shape
    labelled = [tracer.labels(tensor).expand(shape) for tensor in operands if tracer.is_labelled(tensor)]
    if not labelled:
        _fix_computed(tracer, call)
        return
    together = _first_label(labelled)
    moving = varying(together)
    for tensor in operands:
        aligned = [1] * (len(shape) - tensor.dim()) + list(tensor.shape)
        if all(aligned[dim] == 1 for dim in moving):
            constant_along_channels = not tracer.is_labelled(tensor) or not bool(tracer.labels(tensor).any())
            if constant_along_channels:
                continue
        if tracer.is_labelled(tensor):
            labels = tracer.labels(tensor).expand(shape)
            tracer.facts.unify(together, labels, f"they meet something that does not move in {call.name}")
        else:
            _carry_elements(tracer, tensor, _crop(together, aligned).reshape(tensor.shape), call.name)
    tracer.label(call.result, together)


def _first_label(labelled: list[Tensor]) -> Tensor:
    """At each place the label of the first operand that has one."""
    together = labelled[0]
    for labels in labelled[1:]:
        if varying(labels) or bool(labels.any()):
            together = labels if not bool(together.any()) else _fill_frozen(together, labels)
    return together


def _fill_frozen(together: Tensor, labels: Tensor) -> Tensor:
    return torch.where(together == 0, labels, together) if bool((squeeze_constant(together) == 0).any()) else together


def _crop(labels: Tensor, aligned: list[int]) -> Tensor:
    """Labels at the elements of an operand that is broadcast from size `aligned`."""
    for dim, size in enumerate(aligned):
        if size == 1:
            labels = labels.narrow(dim, 0, min(1, labels.shape[dim]))
    return labels


def _carry_elements(tracer: Tracer, tensor: Tensor, labels: Tensor, function: str) -> None:
    """An unlabelled operand with one label per element: a parameter whose dimension carries them, or a constant."""
    origin = tracer.origin(tensor)
    if origin is None:
        tracer.facts.freeze(labels, f"they meet a constant in {function}")
        return
    carry_elements(tracer, origin[0], origin[1], labels)


def carry_elements(tracer: Tracer, name: str, index: Tensor, labels: Tensor) -> None:
    """Parameter `name`: its flat elements `index` have these labels. One of its dimensions must explain them."""
    shape = tracer.registered(name).shape
    by_element = torch.full((shape.numel(),), -1, dtype=labels.dtype)
    by_element[index.reshape(-1)] = labels.reshape(-1)
    whole = by_element.reshape(shape)
    moving = [dim for dim in range(len(shape)) if not bool((whole == whole.narrow(dim, 0, 1)).all())]
    if len(moving) == 1 and bool((whole >= 0).all()):
        dim = moving[0]
        tracer.facts.carry(name, dim, whole.movedim(dim, 0).reshape(shape[dim], -1)[:, 0])
    else:
        tracer.facts.freeze(labels, f"they meet {name}, of which no single dimension carries them")


@rule("prelu")
def prelu(tracer: Tracer, call: Call) -> None:
    source, slope = call.arg(0, "input"), call.arg(1, "weight")
    labels = tracer.labels(source)
    if slope.numel() > 1:
        carry_channels(tracer, slope, along(tracer, labels, 1, call.name), call.name)
    tracer.label(call.result, labels)


@rule("glu")
def glu(tracer: Tracer, call: Call) -> None:
    """One half is gated by the other."""
    labels = tracer.labels(call.arg(0, "input"))
    first, second = labels.chunk(2, dim=call.arg(1, "dim", -1))
    tracer.facts.unify(first, second, "they are gated by glu")
    tracer.label(call.result, first)


def carry_channels(tracer: Tracer, tensor: Tensor | None, labels: Tensor, function: str) -> None:
    """A per-channel vector beside channels `labels`: a bias, a norm's scale, its running mean."""
    if tensor is None:
        return
    origin = tracer.origin(tensor)
    if origin is None:
        tracer.facts.freeze(labels, f"they meet a constant in {function}")
    else:
        carry_elements(tracer, origin[0], origin[1], labels.reshape(tensor.shape))


def along(tracer: Tracer, labels: Tensor, dim: int, function: str) -> Tensor:
    """One label per position of `dim`, [size]; what lies at the same position of `dim` moves together."""
    dim %= labels.dim()
    reference = labels
    for other in varying(labels):
        if other != dim:
            reference = reference.narrow(other, 0, 1)
    reference = reference.expand(labels.shape)
    if len(varying(labels)) > (dim in varying(labels)):
        tracer.facts.unify(labels, reference, f"{function} reads several of them alike")
    return reference.movedim(dim, 0).reshape(labels.shape[dim], -1)[:, 0] if labels.numel() else labels.reshape(-1)


POOLS = [
    "max_pool{d}", "avg_pool{d}", "adaptive_avg_pool{d}", "adaptive_max_pool{d}", "lp_pool{d}", "_max_pool{d}",
    "_adaptive_max_pool{d}", "max_pool{d}_with_indices", "adaptive_max_pool{d}_with_indices",
]


@rule(*(name.format(d=f"{dims}d") for name in POOLS for dims in (1, 2, 3)), "interpolate", "upsample",
      "upsample_nearest", "upsample_bilinear", "boolean_dispatch", "_boolean_dispatch")
def pool(tracer: Tracer, call: Call) -> None:
    """Every map by itself; the last dimensions are spatial."""
    labels = tracer.labels(call.arg(0, "input"))
    spatial = _spatial_dims(call.name, labels.dim())
    if any(dim in spatial for dim in varying(labels)):
        raise ValueError("channels lie along a spatial dimension")
    for dim in spatial:
        labels = labels.narrow(dim, 0, 1)
    for result in call.results():
        tracer.label(result, labels.expand(result.shape))


def _spatial_dims(name: str, dims: int) -> range:
    count = next((int(digit) for digit in "123" if f"{digit}d" in name), dims - 2)
    return range(dims - count, dims)


@rule(*[
    "mean", "sum", "amax", "amin", "var", "std", "logsumexp", "norm", "prod", "all", "any", "nansum", "nanmean",
    "count_nonzero", "vector_norm", "linalg_vector_norm", "max", "min",
])
def reduce(tracer: Tracer, call: Call) -> None:
    """Reduced channels are treated alike, so they may still trade places; the result itself does not move."""
    labels = tracer.labels(call.arg(0, "input"))
    if len(call.tensors()) > 1 or call.name in ("max", "min"):
        if len(call.tensors()) > 1:
            pointwise(tracer, call)
            return
        if len(call.results()) > 1 and any(dim in varying(labels) for dim in _reduced_dims(call, labels.dim())):
            raise ValueError("the position of an extreme channel is read")
    reduced = _reduced_dims(call, labels.dim())
    if any(dim in varying(labels) for dim in reduced):
        tracer.facts.alike_within(*_cells(labels, reduced))
        remaining = frozen(labels.shape)
        if any(dim not in reduced for dim in varying(labels)):
            tracer.facts.freeze(labels, f"{call.name} mixes some of them")
    else:
        remaining = labels
    for dim in reduced:
        remaining = remaining.narrow(dim, 0, min(1, remaining.shape[dim]))
    for result in call.results():
        tracer.label(result, remaining.reshape(result.shape).expand(result.shape))


def _cells(labels: Tensor, reduced: list[int]) -> tuple[Tensor, Tensor]:
    """Labels that occur, all in one cell."""
    occurring = torch.unique(squeeze_constant(labels))
    return occurring, torch.zeros_like(occurring)


def _reduced_dims(call: Call, dims: int) -> list[int]:
    position = 2 if "norm" in call.name else 1
    given = call.arg(position, "dim", call.kwargs.get("axis"))
    if given is None or given == ():
        return list(range(dims))
    if isinstance(given, bool):  # var(input, unbiased)
        return list(range(dims))
    return sorted({dim % dims for dim in ([given] if isinstance(given, int) else list(given))})


@rule("softmax", "log_softmax", "normalize", "softmin", "_softmax")
def normalised_over(tracer: Tracer, call: Call) -> None:
    """Every channel is divided by something in which all of them count alike."""
    labels = tracer.labels(call.arg(0, "input"))
    dim = call.arg(2, "dim", 1) if call.name == "normalize" else call.arg(1, "dim", -1)
    dims = {each % labels.dim() for each in ([dim] if isinstance(dim, int) else dim)}
    if dims & set(varying(labels)):
        tracer.facts.alike_within(*_cells(labels, sorted(dims)))
        if set(varying(labels)) - dims:
            tracer.facts.freeze(labels, f"{call.name} mixes some of them")
    tracer.label(call.result, labels)


def _fix_computed(tracer: Tracer, call: Call) -> None:
    """A function of parameters alone, such as a standardised weight: its parameters stay."""
    for tensor in call.tensors():
        name = tracer.origin_name(tensor)
        if name:
            tracer.facts.fix(name, f"it is computed with by {call.name} before it is used")
