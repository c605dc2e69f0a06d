"""The network as the rest of the backend sees it: nodes in order, constants as arrays, every shape known."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime
from onnx import GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, helper
from onnx.reference import ReferenceEvaluator

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.reading.subgraphs import subgraphs_of, values_read
from onexn_plugins.tvm_backend.reading.ways_out import EXPORT_AGAIN

# Stands between the name of a constant or value of the file and the number of what was made from it.
DERIVED = "\N{MIDDLE DOT}"
# Of the operators that exist between reading and lowering only.
INTERNAL_DOMAIN = "onexn"
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

    def renamed(self, names: Mapping[str, str], *, outputs_only: bool = False) -> Node:
        """The node with its outputs renamed, and its inputs and whatever its subgraphs read of them."""
        proto = NodeProto()
        proto.CopyFrom(self.proto)
        proto.output[:] = [names.get(name, name) for name in proto.output]
        if not outputs_only:
            proto.input[:] = [names.get(name, name) for name in proto.input]
            for inner in subgraphs_of(proto):
                for node in inner.node:
                    node.CopyFrom(Node(node).renamed(names).proto)
                for item in inner.output:
                    item.name = names.get(item.name, item.name)
        return Node(proto)

    def without_last_outputs(self, needed: Container[str]) -> Node:
        """The node without the outputs at the end of its list that are not needed; itself where all are."""
        count = len(self.proto.output)
        while count > 1 and self.proto.output[count - 1] not in needed:
            count -= 1
        # An operator splits into as many parts as it has outputs.
        if count == len(self.proto.output) or self.op == "Split":
            return self
        proto = NodeProto()
        proto.CopyFrom(self.proto)
        del proto.output[count:]
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

    @cached_property
    def subgraphs(self) -> tuple[GraphProto, ...]:
        """What an If, Loop or Scan may run."""
        return tuple(subgraphs_of(self.proto))

    @cached_property
    def reads(self) -> frozenset[str]:
        """Every value that it needs: its inputs, and what its subgraphs take from around them."""
        return frozenset(values_read(self.proto))

    @property
    def name(self) -> str:
        return self.proto.name

    @property
    def output(self) -> str:
        """The first output that is asked for."""
        return self.outputs[0]

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

    def add_constant(self, value: np.ndarray, origin: str) -> str:
        """Store an array under a name of its own, which still tells what it was made from."""
        name = self.new_name(origin)
        self.constants[name] = value
        return name

    def add_value(self, spec: TensorSpec, origin: str) -> str:
        """A name for a new intermediate value."""
        name = self.new_name(origin)
        self.specs[name] = spec
        return name

    def new_name(self, origin: str) -> str:
        """A name that no value has yet, which still tells what it was made from."""
        self._fresh += 1
        return f"{original_name(origin)}{DERIVED}{self._fresh}"

    def prune(self) -> None:
        """Drop nodes and constants that no output depends on, and the last outputs of a node that nobody reads."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                kept.append(node.without_last_outputs(needed))
                needed.update(node.inputs)
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in needed}


# Where the reference implementation begins, later than the operator does, which has only grown since.
_EVALUATED_SINCE = {"Constant": 13, "DequantizeLinear": 21, "QuantizeLinear": 21}
# Operators over windows, channels and sequences, of which the reference implementation knows some shapes and
# attributes, refuses others, and takes others wrong, as GlobalMaxPool of three axes, Softmax before opset 13, of all
# axes from one on, and LpNormalization by the sum of what is not made positive; it collects wrong in loops, too.
_BY_ONNXRUNTIME = frozenset({
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "CumSum", "Einsum", "GRU", "Gemm",
    "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "GridSample", "GroupNormalization", "Hardmax",
    "InstanceNormalization", "LRN", "LSTM", "LayerNormalization", "LogSoftmax", "LpNormalization", "LpPool", "MatMul",
    "MaxPool", "RNN", "Resize", "RoiAlign", "ScatterElements", "ScatterND", "Softmax", "TopK", "Upsample"})


def evaluate(graph: Graph, node: Node, values: Mapping[str, np.ndarray],
             expected: Mapping[str, TensorSpec] | None = None) -> list[np.ndarray]:
    """The node's outputs, where `values` and constants are its inputs: by ONNX's reference implementation, or by
    onnxruntime where that knows more, or where the reference makes other shapes than the `expected` ones.

    Raises:
        OneXNError: it takes no such inputs.
    """
    inputs = {name: values[name] if name in values else graph.constants[name] for name in node.reads}
    declared = [helper.make_value_info(name, TensorSpec(value.shape, value.dtype).onnx_type)
                for name, value in inputs.items()]
    single = helper.make_model(
        helper.make_graph([node.proto], "constant", declared, [ValueInfoProto(name=name) for name in node.outputs]),
        opset_imports=[helper.make_opsetid("", max(graph.opset, _EVALUATED_SINCE.get(node.op, 0)))], ir_version=10)
    ways = (_by_reference, _by_onnxruntime)
    failures: list[Exception] = []
    found: list[list[np.ndarray]] = []
    for compute in reversed(ways) if node.op in _BY_ONNXRUNTIME or node.subgraphs else ways:
        try:
            found.append([np.asarray(value) for value in compute(single, inputs)])
        except Exception as error:
            failures.append(error)
            continue
        if all((value.shape, value.dtype) == (spec.shape, spec.dtype) for value, spec in zip(
                found[-1], map((expected or {}).get, node.outputs), strict=True) if spec is not None):
            return found[-1]
    if found:
        return found[0]
    shapes = ", ".join(f"{list(value.shape)} of {value.dtype}" for value in inputs.values())
    raise OneXNError(node.label, f"cannot be computed from its constants {shapes}", EXPORT_AGAIN) from failures[0]


def _by_reference(model: ModelProto, inputs: dict[str, np.ndarray]) -> list[Any]:
    return list(ReferenceEvaluator(model).run(None, inputs))


def _by_onnxruntime(model: ModelProto, inputs: dict[str, np.ndarray]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))
