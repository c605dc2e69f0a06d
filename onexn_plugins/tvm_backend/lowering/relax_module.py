"""Writes a network, nodes and kernel calls in order, as one Relax function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from onexn_plugins.tvm_backend.kernels.code.unaligned import copy
from onexn_plugins.tvm_backend.kernels.problem import Conv, GlobalPool, Pool
from onexn_plugins.tvm_backend.lowering.frontend import emit_node
from onexn_plugins.tvm_backend.lowering.operators.function import OPAQUE
from onexn_plugins.tvm_backend.planning.fusion import KernelCall
from onexn_plugins.tvm_backend.reading.graph import Graph, Node, TensorSpec

# What the names of kernels of ours begin with.
KERNEL_PREFIX = "onexn_"


def build_module(graph: Graph, order: list[Node | KernelCall]) -> tvm.IRModule:
    """The module whose "main" takes the graph's inputs and returns its outputs, a tuple where there are several.

    Raises:
        OneXNError: TVM cannot import a node.
    """
    builder = relax.BlockBuilder()
    parameters = [relax.Var(f"input_{position}", tensor_type(graph.specs[name]))
                  for position, name in enumerate(graph.inputs)]
    values: dict[str, relax.Expr] = dict(zip(graph.inputs, parameters, strict=True))
    with builder.function("main", parameters):
        with builder.dataflow():
            for name in _read_by_others(graph, order):
                values[name] = owned(builder, graph.specs[name], values[name])
            for item in order:
                if isinstance(item, KernelCall):
                    values[item.output] = _emit_call(builder, graph, item, values)
                else:
                    emit_node(builder, graph, item, values)
            results = [_result(builder, graph, name, values) for name in graph.outputs]
            output = builder.emit_output(results[0] if len(results) == 1 else relax.Tuple(results))
        builder.emit_func_output(output)
    return builder.finalize()


def _read_by_others(graph: Graph, order: list[Node | KernelCall]) -> list[str]:
    """The inputs that more than kernels of ours reads, for which they have to be aligned; or as of another shape, which
    views of what a caller gives would cost at every run."""
    read = {name for item in order if isinstance(item, Node) for name in item.inputs}
    for call in (item for item in order if isinstance(item, KernelCall)):
        read |= {name for name, shape in zip(call.inputs, _seen_shapes(graph, call)[0], strict=True)
                 if tuple(graph.shape(name)) != shape}
    return [name for name in graph.inputs if name in read and name not in graph.constants]


def owned(builder: relax.BlockBuilder, spec: TensorSpec, value: relax.Expr) -> relax.Var:
    """A copy in memory of its own."""
    function = copy(spec.shape, str(spec.dtype)).with_attr("op_pattern", OPAQUE).without_attr("global_symbol")
    kernel = builder.add_func(function, "copy")
    return builder.emit(relax.call_tir(kernel, [value], tensor_type(spec)))


def _emit_call(builder: relax.BlockBuilder, graph: Graph, call: KernelCall, values: dict[str, relax.Expr]) -> relax.Var:
    name = call.layers[0].operator if call.layers else call.nodes[0].op
    function = call.kernel.func.with_attr("op_pattern", OPAQUE).without_attr("global_symbol")
    words = [word.lower() for word in name.split() if word.isalnum()]
    kernel = builder.add_func(function, KERNEL_PREFIX + "_".join(words))
    seen, made = _seen_shapes(graph, call)
    x, *others = (_shaped(builder, values[name], graph.shape(name), shape)
                  for name, shape in zip(call.inputs, seen, strict=True))
    arguments = [x, *(_weights(array) for array in call.kernel.constants), *others]
    out = tensor_type(TensorSpec(made, graph.dtype(call.output)))
    if call.kernel.in_place:
        result = builder.emit(relax.call_tir_inplace(kernel, arguments, len(arguments) - 1, out))
    else:
        result = builder.emit(relax.call_tir(kernel, arguments, out))
    return _shaped(builder, result, made, graph.shape(call.output))


def _seen_shapes(graph: Graph, call: KernelCall) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """The shapes that a kernel has for its inputs and for its output: to it a signal is an image of height 1."""
    first, last = call.request.first.problem, call.request.last.problem
    if not isinstance(first, (Conv, Pool, GlobalPool)):
        return [tuple(graph.shape(name)) for name in call.inputs], tuple(graph.shape(call.output))
    return [first.input_shape, *[last.output_shape] * (len(call.inputs) - 1)], last.output_shape


def _shaped(builder: relax.BlockBuilder, value: relax.Var, shape: Sequence[int], wanted: Sequence[int]) -> relax.Var:
    """A view as a tensor of that shape."""
    return value if tuple(shape) == tuple(wanted) else builder.emit(relax.op.reshape(value, tuple(wanted)))


def _weights(array: np.ndarray) -> relax.Expr:
    """Without a copy where the array can be lent: large networks leave little room. No kernel reads it there, so it may
    lie where vector loads could not.
    """
    lent = array.flags.writeable and array.flags.c_contiguous
    return relax.const(tvm_ffi.from_dlpack(array) if lent else array)


def _result(builder: relax.BlockBuilder, graph: Graph, name: str, values: dict[str, relax.Expr]) -> relax.Expr:
    """A value that the caller may get and keep: constants and inputs are copied."""
    if name in graph.inputs:
        return owned(builder, graph.specs[name], values[name])
    if name not in graph.constants:
        return values[name]
    constant = graph.constants[name]
    return owned(builder, TensorSpec(constant.shape, constant.dtype), relax.const(constant, str(constant.dtype)))


def tensor_type(spec: TensorSpec) -> relax.TensorType:
    """What TVM calls it."""
    return relax.TensorType(spec.shape, str(spec.dtype))
