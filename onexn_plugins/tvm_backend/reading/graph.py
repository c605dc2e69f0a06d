"""The network as the rest of the backend sees it: nodes in order, constants as arrays, every shape known.

Building it evaluates whatever depends on constants and shapes alone, so that what is left computes on activations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TypeProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.tvm_backend.reading.onnx_model import EXPORT_AGAIN, STATIC_SHAPES, check_dimensions, opset_of

# Stands between the name of a constant or value of the file and the number of what was made from it.
DERIVED = "\N{MIDDLE DOT}"
# Operators that compute each element of their result from elements at the same place.
ELEMENTWISE = frozenset({"Add", "Clip", "Div", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Max", "Min", "Mul",
                         "Neg", "Relu", "Sigmoid", "Sub", "Tanh"})


def original_name(name: str) -> str:
    """The name in the file that a constant was made from."""
    return name.split(DERIVED)[0]


@dataclass(frozen=True)
class TensorSpec:
    """Shape and element type of a value."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def onnx_type(self) -> TypeProto:
        return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(self.dtype), self.shape)


@dataclass(frozen=True, eq=False)
class Node:
    """One operator. Two nodes are equal only if they are the same one."""

    proto: NodeProto

    @classmethod
    def make(cls, op: str, inputs: Iterable[str], outputs: Iterable[str], name: str = "", **attributes: Any) -> Node:
        return cls(helper.make_node(op, list(inputs), list(outputs), name=name, **attributes))

    def rewired(self, names: Mapping[str, str]) -> Node:
        """The node with inputs renamed; itself where none is."""
        if not any(name in names for name in self.inputs):
            return self
        proto = NodeProto()
        proto.CopyFrom(self.proto)
        for position, name in enumerate(self.inputs):
            proto.input[position] = names.get(name, name)
        return Node(proto)

    @property
    def op(self) -> str:
        return self.proto.op_type

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.proto.input)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name for name in self.proto.output if name)

    @property
    def name(self) -> str:
        return self.proto.name

    @property
    def output(self) -> str:
        return self.proto.output[0]

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.op} {(self.proto.name or self.output)!r}"

    @cached_property
    def attributes(self) -> dict[str, Any]:
        return {item.name: helper.get_attribute_value(item) for item in self.proto.attribute}

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def input(self, position: int) -> str:
        """Name of an input; "" where that optional input is left out."""
        return self.inputs[position] if position < len(self.inputs) else ""


@dataclass
class Graph:
    """A network with static shapes.

    Attributes:
        nodes: in an order in which every value exists before it is used.
        constants: weights and whatever was computed from constants.
        specs: shape and element type of every value that a node or the caller makes.
        inputs: names, in the order of the file.
        outputs: which value each of the model's outputs is.
        output_names: the model's names for them.
        opset: version of the standard operators.
    """

    nodes: list[Node]
    constants: dict[str, np.ndarray]
    specs: dict[str, TensorSpec]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    output_names: tuple[str, ...]
    opset: int
    _fresh: int = field(default=0, repr=False)

    def constant(self, node: Node, position: int) -> np.ndarray | None:
        """The constant at that input of the node; None where it is left out or not constant."""
        return self.constants.get(node.input(position))

    def shape(self, name: str) -> tuple[int, ...]:
        return self.constants[name].shape if name in self.constants else self.specs[name].shape

    def dtype(self, name: str) -> np.dtype:
        return self.constants[name].dtype if name in self.constants else self.specs[name].dtype

    def activations(self, node: Node) -> list[str]:
        """The inputs that are computed at run time, in order."""
        return [name for name in node.inputs if name and name not in self.constants]

    def consumers(self) -> dict[str, list[Node]]:
        """Which nodes read each value."""
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                users.setdefault(name, []).append(node)
        return users

    def single_consumers(self) -> dict[str, Node]:
        """The node that reads a value, for values that one node alone reads and the caller does not get."""
        return {name: nodes[0] for name, nodes in self.consumers().items()
                if len(nodes) == 1 and name not in self.outputs}

    def is_needed(self, names: Iterable[str]) -> bool:
        """Whether the caller or any node reads one of these values."""
        wanted = set(names)
        return bool(wanted) and (not wanted.isdisjoint(self.outputs) or any(
            not wanted.isdisjoint(node.inputs) for node in self.nodes))

    def add_constant(self, value: np.ndarray, origin: str) -> str:
        """Store an array under a name of its own, which still tells what it was made from."""
        name = self._new_name(origin)
        self.constants[name] = value
        return name

    def add_value(self, spec: TensorSpec, origin: str) -> str:
        """A name for a new intermediate value."""
        name = self._new_name(origin)
        self.specs[name] = spec
        return name

    def _new_name(self, origin: str) -> str:
        self._fresh += 1
        return f"{original_name(origin)}{DERIVED}{self._fresh}"

    def prune(self) -> None:
        """Drop nodes and constants that no output depends on."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(node.inputs)
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in needed}


def build_graph(model: ModelProto) -> Graph:
    """The graph of a checked model (see load_onnx_model).

    Raises:
        OneXNError: a node is not a standard operator, is given shapes it cannot take, or makes a tensor that is too
            large or of a shape that only run-time values decide.
    """
    constants = {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    specs = {item.name: _input_spec(item) for item in model.graph.input if item.name not in constants}
    outputs = tuple(item.name for item in model.graph.output)
    graph = Graph([], constants, specs, tuple(specs), outputs, outputs, opset_of(model))
    for proto in model.graph.node:
        _add(graph, Node(proto), model)
    graph.prune()
    return graph


def _input_spec(item: ValueInfoProto) -> TensorSpec:
    kind = item.type.tensor_type
    return TensorSpec(tuple(dim.dim_value for dim in kind.shape.dim),
                      np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)))


def _add(graph: Graph, node: Node, model: ModelProto) -> None:
    """Append the node, or its value where that is known already."""
    for name, spec in _infer(graph, node, model):
        graph.specs[name] = spec
    if node.op == "Shape" and node.inputs[0] in graph.specs:
        dims = np.array(graph.shape(node.inputs[0]), np.int64)
        graph.constants[node.output] = dims[node.attributes.get("start", 0):node.attributes.get("end", len(dims))]
    elif all(name in graph.constants for name in node.inputs if name) and not _is_random(node):
        graph.constants.update(zip(node.outputs, evaluate(graph, node, graph.constants), strict=True))
    else:
        graph.nodes.append(node)
        return
    for name in node.outputs:
        del graph.specs[name]


def _is_random(node: Node) -> bool:
    return node.op.startswith("Random") or node.op in ("Bernoulli", "Multinomial")


def _infer(graph: Graph, node: Node, model: ModelProto) -> Iterator[tuple[str, TensorSpec]]:
    """Shape and type of the node's outputs, from ONNX's own rules for that operator."""
    try:
        schema = onnx.defs.get_schema(node.op, graph.opset, node.proto.domain)
    except onnx.defs.SchemaError as error:
        raise OneXNError(node.label, "is not a standard ONNX operator of this opset",
                         "Replace it in the model by standard layers and export again") from error
    names = [name for name in node.inputs if name]
    types = {name: TensorSpec(graph.shape(name), graph.dtype(name)).onnx_type for name in names}
    # Only small integer constants decide shapes; handing over every weight would copy them all.
    data = {name: numpy_helper.from_array(graph.constants[name]) for name in names
            if name in graph.constants and graph.constants[name].size <= 64}
    try:
        inferred = onnx.shape_inference.infer_node_outputs(
            schema, node.proto, types, data, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise OneXNError(node.label, f"cannot take these inputs: {first_line(error)}", EXPORT_AGAIN) from error
    for name in node.outputs:
        yield name, _output_spec(node, name, inferred.get(name))


def _output_spec(node: Node, name: str, kind: TypeProto | None) -> TensorSpec:
    tensor = kind.tensor_type if kind is not None and kind.HasField("tensor_type") else None
    known = tensor is not None and tensor.HasField("shape") and all(
        dim.HasField("dim_value") for dim in tensor.shape.dim)
    if tensor is None or not known:
        raise OneXNError(node.label, f"the shape of its output {name!r} depends on run-time values", STATIC_SHAPES)
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)
    check_dimensions(node.label, shape)
    return TensorSpec(shape, np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))


def evaluate(graph: Graph, node: Node, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The node's outputs by ONNX's reference implementation, where `values` and constants are its inputs.

    Raises:
        OneXNError: it takes no such inputs.
    """
    inputs = {name: values[name] if name in values else graph.constants[name] for name in node.inputs if name}
    declared = [helper.make_value_info(name, TensorSpec(value.shape, value.dtype).onnx_type)
                for name, value in inputs.items()]
    results = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(graph.dtype(name)), None)
               for name in node.outputs]
    single = helper.make_model(helper.make_graph([node.proto], "constant", declared, results),
                               opset_imports=[helper.make_opsetid("", graph.opset)])
    try:
        return [np.asarray(value) for value in ReferenceEvaluator(single).run(None, inputs)]
    except Exception as error:
        raise OneXNError(node.label, f"cannot be computed from its constants: {first_line(error)}",
                         EXPORT_AGAIN) from error
