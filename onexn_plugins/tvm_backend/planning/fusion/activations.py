"""Which activation follows a layer, told by what the nodes compute: every exporter spells SiLU, hard-swish or GELU
its own way.

Nodes that read nothing but the layer's result and scalars are brought into a normal form (see functions), by what the
operators define. Where one value is all that comes out of them, it is compared with the activations that kernels know,
at infinities and NaN as well; the longest match is taken. What is no known activation is left to TVM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial, reduce

import numpy as np

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.planning.fusion.functions import Function, Unknown, X
from onexn_plugins.tvm_backend.reading.graph import ELEMENTWISE, Graph, Node, evaluate

Consumers = Mapping[str, Sequence[Node]]

_MOST_NODES = 8
# The constants of activations lie between 1 / 64 and 64.
_MODERATE = 64.0
# Operators whose result is one of their operands, exactly.
_CHOOSING = frozenset({"Max", "Min"})
_NOT_FINITE = np.array([np.inf, -np.inf, np.nan], np.float32)


def activation_after(graph: Graph, consumers: Consumers, value: str,
                     taken: Set[Node]) -> tuple[str | None, list[Node]]:
    """The kernels' name for the activation of a layer's result, and the nodes that compute it, the last of which gives
    it; (None, []) where there is none.

    Args:
        graph: the network.
        consumers: which nodes read each value.
        value: the result.
        taken: nodes that other kernels compute.
    """
    known, nodes = {value: (X, _NOT_FINITE)}, list[Node]()
    found: tuple[str | None, list[Node]] = (None, [])
    while len(nodes) < _MOST_NODES and (node := _next(graph, consumers, known, {*nodes, *taken})):
        try:
            known[node.output] = _result(graph, node, known)
        except (Unknown, OneXNError):
            break
        nodes.append(node)
        if not any(_is_read(graph, consumers, name, nodes) for name in known if name != node.output):
            name = _name(*known[node.output])
            found = (name, list(nodes)) if name else found
    return found


def normal_form(node: Node, operands: Sequence[Function | float | None]) -> Function:
    """The function that an elementwise node computes.

    Args:
        node: its operator and attributes.
        operands: its inputs: functions, numbers (infinite ones too), None where one is left out.

    Raises:
        Unknown: there is no normal form of it.
    """
    if node.op == "Clip":
        # An infinite bound is none.
        x, low, high = (*operands, None, None)[:3]
        result = _as_function(x)
        if low not in (None, -np.inf):
            result = result.maximum(_as_function(low, rounds=False))
        return result if high in (None, np.inf) else result.minimum(_as_function(high, rounds=False))
    functions = [_as_function(operand, rounds=node.op not in _CHOOSING) for operand in operands if operand is not None]
    if node.op in _MANY:
        return reduce(_MANY[node.op], functions)
    if node.op not in _ONE:
        raise Unknown
    return _ONE[node.op](node, *functions)


def _as_function(operand: Function | float | None, *, rounds: bool = True) -> Function:
    """Also of a number, of moderate size where the operator rounds: adding 1.5 * 2^23 in float32 and taking it away
    again rounds to whole numbers, which functions of real numbers do not tell.
    """
    if operand is None:
        raise Unknown
    if isinstance(operand, Function):
        return operand
    if rounds and operand and not 1 / _MODERATE <= abs(operand) <= _MODERATE:
        raise Unknown
    return Function.constant(float(operand))


def _hard_sigmoid(x: Function, slope: float, shift: float) -> Function:
    line = x * Function.constant(slope) + Function.constant(shift)
    return line.maximum(Function.constant(0)).minimum(Function.constant(1))


def _gelu(x: Function) -> Function:
    half = Function.constant(0.5)
    return x * half + x * half * (x * Function.constant(0.5**0.5)).inside("erf")


def _exact_gelu(node: Node, x: Function) -> Function:
    if node.text("approximate", "none") != "none":
        raise Unknown
    return _gelu(x)


def _tanh(x: Function) -> Function:
    """2 sigmoid(2 x) - 1."""
    two = Function.constant(2)
    return (x * two).inside("sigmoid") * two - Function.constant(1)


_SIXTH, _HALF = 1 / 6, 0.5
_MANY: dict[str, Callable[[Function, Function], Function]] = {
    "Add": Function.__add__, "Sub": Function.__sub__, "Mul": Function.__mul__, "Div": Function.__truediv__,
    "Max": Function.maximum, "Min": Function.minimum,
}
_ONE: dict[str, Callable[[Node, Function], Function]] = {
    "Neg": lambda node, x: -x,
    "Relu": lambda node, x: x.maximum(Function.constant(0)),
    "HardSigmoid": lambda node, x: _hard_sigmoid(x, node.attributes.get("alpha", 0.2),
                                                 node.attributes.get("beta", 0.5)),
    "HardSwish": lambda node, x: x * _hard_sigmoid(x, _SIXTH, _HALF),
    "Sigmoid": lambda node, x: x.inside("sigmoid"),
    "Exp": lambda node, x: x.inside("exp"),
    "Erf": lambda node, x: x.inside("erf"),
    "Tanh": lambda node, x: _tanh(x),
    "Gelu": _exact_gelu,
}
# What ONNX's operators define: the function of finite numbers, and its values at infinity, minus infinity and NaN.
_KNOWN: dict[str, tuple[Function, tuple[float, float, float]]] = {
    "relu": (X.maximum(Function.constant(0)), (np.inf, 0, np.nan)),
    "relu6": (X.maximum(Function.constant(0)).minimum(Function.constant(6)), (6, 0, np.nan)),
    "hardsigmoid": (_hard_sigmoid(X, _SIXTH, _HALF), (1, 0, np.nan)),
    "hardswish": (X * _hard_sigmoid(X, _SIXTH, _HALF), (np.inf, np.nan, np.nan)),
    "sigmoid": (X.inside("sigmoid"), (1, 0, np.nan)),
    "silu": (X * X.inside("sigmoid"), (np.inf, np.nan, np.nan)),
    "gelu": (_gelu(X), (np.inf, np.nan, np.nan)),
}


def _result(graph: Graph, node: Node, known: Mapping[str, tuple[Function, np.ndarray]]) -> tuple[Function, np.ndarray]:
    """The node's output as a function of the layer's result, and where that is not finite."""
    operands = [None if not name else known[name][0] if name in known else float(graph.constants[name].reshape(()))
                for name in node.inputs]
    points = {name: values for name, (_, values) in known.items()}
    with np.errstate(all="ignore"):
        (beyond,) = evaluate(graph, node, points)
    return normal_form(node, operands), beyond.reshape(-1)


def _next(graph: Graph, consumers: Consumers, known: Mapping[str, object], without: set[Node]) -> Node | None:
    """A node that computes each element from known values at its place and scalars."""
    readers: Iterator[Node] = (reader for name in known for reader in consumers.get(name, ()))
    is_known = partial(_is_known_at_its_place, graph, known)
    return next((node for node in readers if node not in without and node.op in ELEMENTWISE and is_known(node)), None)


def _is_known_at_its_place(graph: Graph, known: Mapping[str, object], node: Node) -> bool:
    """Whether all inputs are known values or scalars, and the output is as large as they are: a scalar of many axes
    would add some.
    """
    first = next(iter(known))
    return graph.shape(node.output) == graph.shape(first) and all(
        name in known or (name in graph.constants and graph.constants[name].size == 1) for name in node.inputs if name)


def _is_read(graph: Graph, consumers: Consumers, name: str, inside: Sequence[Node]) -> bool:
    """Whether the caller or a node besides these needs the value."""
    return name in graph.outputs or any(node not in inside for node in consumers[name])


def _name(function: Function, beyond: np.ndarray) -> str | None:
    return next((name for name, (expected, ends) in _KNOWN.items()
                 if function.is_near(expected) and np.allclose(beyond, ends, rtol=1e-6, equal_nan=True)), None)
