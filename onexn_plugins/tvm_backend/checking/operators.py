"""Compares every operator that runs in no kernel of ours, alone, with onnxruntime and ONNX's reference.

TVM's importer computes something else for some attributes, and LLVM's code for some shapes reads what it should not.
So each combination of operator, attributes, shapes and types is compiled for this machine (for a cross target too),
run on ordinary and extreme inputs, and compared, once; see cache. One that differs is refused by its name, one that
no reference knows is not remembered. The steps of LSTM, GRU and RNN are a node of our own; see recurrence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
import onnxruntime
import tvm
from onnx import ModelProto, helper, numpy_helper
from tvm import relax

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.checking import inputs
from onexn_plugins.tvm_backend.checking.cache import Cache, code_digest
from onexn_plugins.tvm_backend.checking.recurrence import as_operator, grows, shortened
from onexn_plugins.tvm_backend.checking.reference import agrees_with_any, difference, difference_each, references
from onexn_plugins.tvm_backend.lowering.frontend import emit_node
from onexn_plugins.tvm_backend.lowering.relax_module import owned, tensor_type
from onexn_plugins.tvm_backend.output.tvm_library import compile_library
from onexn_plugins.tvm_backend.processors import Target, find_target
from onexn_plugins.tvm_backend.reading.graph import INTERNAL_DOMAIN, Graph, Node

Maker = Callable[..., np.ndarray]
# Operators that give each output from one place of their inputs, or choose one of them: there is one right answer for
# infinities and NaN as well. Sums of such values depend on their order.
_BY_PLACE = frozenset({
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Clip", "Concat", "Cos",
    "DepthToSpace", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements",
    "GatherND", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "Max", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pad", "Pow",
    "Reciprocal", "ReduceMax", "ReduceMin", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Slice", "Softplus",
    "Softsign", "SpaceToDepth", "Split", "Sqrt", "Sub", "Tan", "Tanh", "ThresholdedRelu", "Tile", "Transpose",
    "Where", "Xor",
})
# Only their parameters' values decide a shape or a place; of other constants the shape is enough.
_FEW = 64


def check_operators(graph: Graph, order: Sequence[object], processor: Target) -> None:
    """Compare those that were not yet compared.

    Raises:
        OneXNError: names the operator that is not right, or that TVM cannot import.
    """
    known = Cache()
    # Views are not computed.
    nodes = {digest(graph, node, processor): node for node in order
             if isinstance(node, Node) and node.op != "Reshape"}
    new = {key: node for key, node in nodes.items() if key not in known}
    steps = {key: node for key, node in new.items() if node.proto.domain == INTERNAL_DOMAIN}
    alone = {key: node for key, node in new.items() if key not in steps}
    compared = check_nodes(graph, list(alone.values())) if alone else []
    known.add(key for key, was_compared in zip(alone, compared, strict=True) if was_compared)
    for key, node in steps.items():
        if all(check_nodes(shortened(graph, node), [node])):
            known.add([key])


def digest(graph: Graph, node: Node, processor: Target) -> str:
    """Of all that decides the node's code."""
    parts = [tvm.__version__, onnx.__version__, onnxruntime.__version__, code_digest(), str(graph.opset), node.op,
             node.proto.domain, processor.triple, find_target("host").cpu, *find_target("host").features]
    parts += sorted(str(attribute) for attribute in node.proto.attribute)
    positions = {name: str(place) for place, name in reversed(list(enumerate(node.inputs)))}
    for name in node.inputs:
        value = graph.constants.get(name)
        parts += [positions[name], *([str(graph.shape(name)), str(graph.dtype(name))] if name else ["none"])]
        if value is not None:
            is_whole = value.size <= _FEW or not np.issubdtype(value.dtype, np.floating)
            parts += ["constant", hashlib.sha256(value.tobytes()).hexdigest() if is_whole else ""]
    parts += [f"{bool(name)}" for name in node.proto.output]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def check_nodes(graph: Graph, nodes: Sequence[Node]) -> list[bool]:
    """Compile them in one module, none of which reads another's output; then run and compare each.

    Returns:
        For each whether any reference computed it.
    """
    parameters, module = _module(graph, nodes)
    network = compile_library(module, find_target("host"))
    cases = [list(_cases(graph, node)) for node in nodes]
    compared = [False] * len(nodes)
    for number in range(max(map(len, cases))):
        feeds = [case[min(number, len(case) - 1)] for case in cases]
        given = [tvm.runtime.tensor(feeds[place][0][name]) for place, name in parameters]
        results = network.run(*given)
        outputs = iter([np.from_dlpack(item) for item in ([results] if isinstance(results, tvm.runtime.Tensor)
                                                          else results)])
        for place, (node, (values, fault)) in enumerate(zip(nodes, feeds, strict=True)):
            made = [next(outputs) for _ in node.outputs]
            ran, wrong = agrees_with_any(made, references(_model(graph, node)), values, fault)
            compared[place] |= ran
            if wrong:
                raise OneXNError(node.label, f"would be computed wrong: {wrong}",
                                 "Replace it in the model by standard layers and export again, and report it")
    return compared


def _module(graph: Graph, nodes: Sequence[Node]) -> tuple[list[tuple[int, str]], tvm.IRModule]:
    """The nodes' inputs as (place of the node, name), and the module that takes them and returns all outputs."""
    parameters = [(place, name) for place, node in enumerate(nodes) for name in dict.fromkeys(graph.activations(node))]
    builder = relax.BlockBuilder()
    variables = [relax.Var(f"input_{number}", tensor_type(graph.specs[name]))
                 for number, (_, name) in enumerate(parameters)]
    with builder.function("main", variables):
        with builder.dataflow():
            results = []
            for place, node in enumerate(nodes):
                values: dict[str, relax.Expr] = {name: variable for (at, name), variable in zip(
                    parameters, variables, strict=True) if at == place}
                emit_node(builder, graph, node, values)
                results += [owned(builder, graph.specs[name], values[name]) for name in node.outputs]
            output = builder.emit_output(results[0] if len(results) == 1 else relax.Tuple(results))
        builder.emit_func_output(output)
    return parameters, builder.finalize()


def _cases(graph: Graph, node: Node) -> Iterator[tuple[dict[str, np.ndarray], Callable[..., str | None]]]:
    """Inputs, and how outputs for them are compared."""
    specs = {name: graph.specs[name] for name in graph.activations(node)}
    makers: list[tuple[Maker, Callable[..., str | None]]] = [
        (inputs.ordinary, difference), (inputs.positive, difference)]
    if node.op in _BY_PLACE:
        makers.append((inputs.extreme, difference_each))
    elif not grows(node):
        makers.append((inputs.large, difference))
    for make, fault in makers:
        yield {name: make(spec, seed) for seed, (name, spec) in enumerate(specs.items())}, fault


def _model(graph: Graph, node: Node) -> ModelProto:
    """The node as a model of its own."""
    if node.proto.domain == INTERNAL_DOMAIN:
        return as_operator(graph, node)
    given = [helper.make_value_info(name, graph.specs[name].onnx_type)
             for name in dict.fromkeys(graph.activations(node))]
    made = [helper.make_value_info(name, graph.specs[name].onnx_type) for name in node.outputs]
    weights = [numpy_helper.from_array(graph.constants[name], name)
               for name in dict.fromkeys(node.inputs) if name in graph.constants]
    return helper.make_model(helper.make_graph([node.proto], "node", given, made, weights),
                             opset_imports=[helper.make_opsetid("", graph.opset)], ir_version=10)
