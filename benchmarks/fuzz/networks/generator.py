"""Makes the network of a number: operators one after the other, each tried by onnxruntime on what there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper, numpy_helper

from benchmarks.fuzz.networks.operators import MAKERS
from benchmarks.fuzz.networks.operators.made import Made, Maker, array, whole
from benchmarks.fuzz.networks.spelling import respelled
from onexn_plugins.tvm_backend.checking.reference import onnxruntime_session

OPSETS = (*[20] * 8, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22, 23, 24)
SHAPES = ((1, 4, 7, 9), (1, 3, 8, 8), (2, 6, 5, 5), (1, 8, 1, 1), (1, 6, 12), (3, 10), (2, 5, 8), (1, 16),
          (2, 4, 3, 5, 4), (1, 2, 1, 9), (1, 16, 6, 6), (7,), (4, 1, 6), (1, 1, 1, 1), (1, 16, 14, 14), (1, 3, 32, 32),
          (2, 8, 19, 13), (1, 24, 7, 7), (1, 8, 50), (1, 20, 12), (1, 1, 5, 1, 4), (33, 1))
# Rarely: a scalar, and tensors without elements.
ODD_SHAPES = ((), (0, 4), (1, 0, 3, 3))
TYPES = (*[np.float32] * 20, np.float16, np.float64, np.int32, np.uint8, np.bool_)
MOST_NODES, MOST_ELEMENTS = 6, 20000
KEPT = set(map(np.dtype, ("float32", "float16", "float64", "int64", "int32", "int8", "uint8", "bool")))


@dataclass
class Network:
    """A network under construction.

    Attributes:
        random: what it is drawn from.
        opset: of its operators.
        nodes, constants: what it is made of.
        values: every value that there is, as onnxruntime computes it; the inputs first.
        inputs: how many of them are.
    """

    random: Random
    opset: int
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: int = 1

    def model(self) -> ModelProto:
        """With every value that nothing reads as an output, and some that are read."""
        read = {name for node in self.nodes for name in (*node.input, *_captured(node))}
        names = list(self.values)
        given = [_info(name, self.values[name]) for name in names[:self.inputs]]
        made = [_info(name, self.values[name]) for name in names[self.inputs:] if name not in self.constants
                and (name not in read or self.random.random() < 0.05)]
        if self.random.random() < 0.15:
            for item in given:
                _make_dynamic(item, self.random)
        return _model(self.nodes, given, made, self.constants, self.opset)


def network(number: int) -> ModelProto:
    """The same one for the same number."""
    random = Random(number)
    made = Network(random, random.choice(OPSETS), inputs=random.choice([1, 1, 1, 2]))
    kind = random.choice(TYPES)
    for place in range(made.inputs):
        shape = random.choice(SHAPES) if random.random() < 0.97 else random.choice(ODD_SHAPES)
        made.values[f"x{place}"] = whole(random, 0, 1, *shape) if random.random() < 0.05 else array(
            random, *shape).astype(kind)
    if random.random() < 0.15:  # operators on constants alone are computed while a file is read
        made.constants["w"] = made.values["w"] = array(random, *random.choice(SHAPES)).astype(kind)
    wanted = random.randint(1, MOST_NODES)
    for _ in range(12 * wanted):
        if len(made.nodes) >= wanted:
            break
        # Mostly chains: what is fused follows each other.
        names = list(made.values)
        source = names[-1] if random.random() < 0.75 else random.choice(names)
        value = made.values[source]
        item = _drawn(random.choice(MAKERS[value.dtype.kind]), random, value.shape)
        if item is not None:
            _append_chain(made, item if isinstance(item, list) else [item], source)
    if not made.nodes:
        _append(made, Made("Identity"), [["x0"]])
    return respelled(made.model(), random)


def _drawn(maker: Maker, random: Random, shape: tuple[int, ...]) -> Made | list[Made] | None:
    """What the maker makes; None also where a tensor without elements or axes leaves nothing to draw from."""
    try:
        return maker(random, shape)
    except (ValueError, IndexError, ZeroDivisionError):
        if shape and 0 not in shape:
            raise
        return None


def _append_chain(made: Network, items: list[Made], source: str) -> None:
    """Add the nodes one after the other, as far as they go."""
    chain = [[source]]
    for item in items:
        names = _append(made, item, chain)
        if not names:
            return
        chain.append(names)


def _append(made: Network, item: Made, chain: list[list[str]]) -> list[str]:
    """Add the node, if onnxruntime can compute it and it makes few numbers; its outputs, or none.

    Args:
        made: the network.
        item: the node.
        chain: the outputs of the nodes of its chain, after what the chain begins with.
    """
    constants: dict[str, np.ndarray] = {}
    source = next(filter(None, chain[-1]))
    kind = None if item.keeps_types else made.values[source].dtype
    inputs = [source] if item.reads_source else []
    for other in item.others:
        if isinstance(other, str):
            name = _earlier(made, other, chain, source)
            if name is None:
                return []
            inputs.append(name)
        else:
            inputs.append(_constant(made, np.asarray(other), kind, constants))
    first = len(made.values)
    asked = [True] * item.outputs if isinstance(item.outputs, int) else item.outputs
    numbers = count(first)
    names = [f"v{next(numbers)}" if wanted else "" for wanted in asked]
    try:
        node = helper.make_node(item.op, inputs, names, **item.attributes)
    except ValueError:  # an empty list tells no type
        return []
    _name_subgraphs(node, source, f"v{first}_")
    given = {name: made.values[name] for name in sorted({*inputs, *_captured(node)})
             if name in made.values and name not in made.constants}
    constants_read = {name: value for name, value in (made.constants | constants).items()
                      if name in (*inputs, *_captured(node))}
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    single = _model([node], [_info(name, value) for name, value in given.items()], outputs, constants_read, made.opset)
    try:
        onnx.checker.check_node(node, _context(made.opset))
        results = onnxruntime_session(single.SerializeToString()).run(None, given)
    except Exception:
        return []
    if not all(isinstance(value, np.ndarray) and value.size <= MOST_ELEMENTS and value.dtype in KEPT
               for value in results):
        return []
    made.nodes.append(node)
    made.constants.update(constants)
    made.values.update(zip(filter(None, node.output), results, strict=True))
    return names


def _earlier(made: Network, wanted: str, chain: list[list[str]], source: str) -> str | None:
    """The name of a value as `wanted` says; None where there is none of its kind."""
    if wanted in ("", "@"):
        return source if wanted else ""
    if wanted.startswith("#"):
        place, _, output = wanted[1:].partition(":")
        return chain[int(place)][int(output or 0)]
    kind = made.values[source].dtype
    fits = {"other": lambda dtype: dtype == kind, "other:f": lambda dtype: dtype == np.float32,
            "other:i": lambda dtype: dtype == np.int64, "other:b": lambda dtype: dtype == np.bool_}[wanted]
    names = [name for name, value in made.values.items() if fits(value.dtype)]
    return made.random.choice(names) if names else None


def _constant(made: Network, value: np.ndarray, kind: np.dtype | None, constants: dict[str, np.ndarray]) -> str:
    """The name of a constant: floats in the source's type, if that counts; whole numbers too where that is one of them
    and few read shapes or places. One of the same shape may be shared.
    """
    if kind is None:
        pass
    elif value.dtype == np.float32 and kind.kind in "fiu":
        value = (np.abs(value) if kind.kind == "u" else value).astype(kind)
    elif value.dtype == np.int64 and kind in (np.int32, np.int8, np.uint8) and value.ndim == 0:
        value = value.astype(kind)
    same = [name for name, known in made.constants.items()
            if known.dtype == value.dtype and known.shape == value.shape and value.dtype.kind == "f" and value.ndim]
    if same and made.random.random() < 0.3:
        return made.random.choice(same)
    name = f"c{len(made.constants) + len(constants)}"
    constants[name] = value
    return name


def _captured(node: NodeProto) -> Iterator[str]:
    """What its subgraphs read, of themselves or from around them."""
    for graph in _subgraphs(node):
        for inner in graph.node:
            yield from inner.input


def _subgraphs(node: NodeProto) -> list[GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]


def _name_subgraphs(node: NodeProto, source: str, prefix: str) -> None:
    """Give the subgraphs their source and names of their own."""
    def named(name: str) -> str:
        return source if name == "@" else f"{prefix}{name[1:]}" if name.startswith("@") else name

    for graph in _subgraphs(node):
        for item in (*graph.input, *graph.output, *graph.initializer):
            item.name = named(item.name)
        for inner in graph.node:
            inner.input[:], inner.output[:] = map(named, inner.input), map(named, inner.output)


def _make_dynamic(item: onnx.ValueInfoProto, random: Random) -> None:
    """Some dimensions get a name that tells their size, which is asked to be positive: see judge.sizes."""
    for dim in item.type.tensor_type.shape.dim:
        if random.random() < 0.4 and dim.dim_value:
            dim.dim_param = f"{DYNAMIC}{dim.dim_value}"


DYNAMIC = "size_"


def _context(opset: int) -> onnx.checker.C.CheckerContext:
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = 10, {"": opset}
    return context


def _info(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _model(nodes: list[NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto],
           constants: dict[str, np.ndarray], opset: int) -> ModelProto:
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "network", inputs, outputs, weights),
                             opset_imports=[helper.make_opsetid("", opset)], ir_version=10 if opset < 23 else 11)
