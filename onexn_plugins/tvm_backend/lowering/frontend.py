"""One ONNX node as Relax, through TVM's own importer.

Importing node by node keeps the file's names, so that every refusal names the operator; and every constant a node
needs is known by then, which the importer asks for.
"""

from __future__ import annotations

import contextlib
import io
import warnings

import tvm
from onnx import helper, numpy_helper
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx
from tvm.relax.frontend.onnx.onnx_frontend import _get_convert_map

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.lowering.own import EMITTERS
from onexn_plugins.tvm_backend.reading.graph import Graph, Node
from onexn_plugins.tvm_backend.reading.ways_out import OTHER_LAYERS


def emit_node(builder: relax.BlockBuilder, graph: Graph, node: Node, values: dict[str, relax.Expr]) -> None:
    """Emit the node's computation and enter its outputs into `values`.

    Raises:
        OneXNError: TVM's importer does not know the operator, or not with these attributes.
    """
    if node.op == "Reshape":
        values[node.output] = builder.emit(relax.op.reshape(values[node.inputs[0]], graph.shape(node.output)))
        return
    outputs = _emit_own(builder, graph, node, values)
    if outputs is None:
        outputs = _emit_imported(builder, graph, node, values)
    for name, output in zip(node.proto.output, outputs, strict=False):
        if not name:
            continue
        expected = graph.specs[name]
        if tuple(int(size) for size in output.ty.shape) != expected.shape or output.ty.dtype != str(expected.dtype):
            raise OneXNError(node.label, f"would become {_described(output.ty)} where ONNX says "
                             f"{list(expected.shape)} of {expected.dtype}", OTHER_LAYERS)
        values[name] = output


def _emit_own(builder: relax.BlockBuilder, graph: Graph, node: Node,
              values: dict[str, relax.Expr]) -> list[relax.Expr] | None:
    """The outputs by an emitter of this package; None where there is none for this node."""
    emitter = EMITTERS.get(node.op)
    if emitter is None:
        return None
    inputs = [values[name] if name in values else _constant(graph, name) if name else None
              for name in node.inputs]
    return emitter(builder, graph, node, inputs)


def _constant(graph: Graph, name: str) -> relax.Expr:
    """With its type: of a single integer TVM would make an int32."""
    return relax.const(graph.constants[name], str(graph.dtype(name)))


def _emit_imported(builder: relax.BlockBuilder, graph: Graph, node: Node,
                   values: dict[str, relax.Expr]) -> list[relax.Expr]:
    activations = list(dict.fromkeys(graph.activations(node)))
    try:
        module = _import(graph, node, activations)
        main = module["main"]
        copier = _Copier(builder, module, dict(zip(main.params, (values[name] for name in activations), strict=True)))
        result = copier.copy(main.body)
    except Exception as error:
        raise OneXNError(node.label, _refusal(node), OTHER_LAYERS) from error
    if isinstance(result, relax.Tuple):
        return list(result.fields)
    if isinstance(result.ty, relax.TupleType):
        return [builder.emit(relax.TupleGetItem(result, position)) for position in range(len(result.ty.fields))]
    return [result]


def _refusal(node: Node) -> str:
    """Why TVM's importer does not take it, in words of the file: its own tell of its insides."""
    if node.op not in _get_convert_map():
        return "is an operator that neither this package nor TVM can compute"
    settings = {name: value.decode() if isinstance(value, bytes) else value for name, value in node.attributes.items()
                if isinstance(value, (int, float, bytes, list))}
    listed = ", ".join(f"{name}={value}" for name, value in settings.items())
    return f"cannot be computed with these inputs and attributes{f' ({listed})' if listed else ''}"


def _described(kind: relax.Type) -> str:
    if isinstance(kind, relax.TensorType):
        return f"{[int(size) for size in kind.shape]} of {kind.dtype}"
    return "several tensors"


def _import(graph: Graph, node: Node, activations: list[str]) -> tvm.IRModule:
    inputs = [helper.make_value_info(name, graph.specs[name].onnx_type) for name in activations]
    outputs = [helper.make_value_info(name, graph.specs[name].onnx_type) for name in node.outputs]
    weights = [numpy_helper.from_array(graph.constants[name], name)
               for name in dict.fromkeys(node.inputs) if name in graph.constants]
    model = helper.make_model(helper.make_graph([node.proto], "node", inputs, outputs, weights),
                              opset_imports=[helper.make_opsetid("", graph.opset)])
    # The importer prints the operator it fails on, and warns about names that it changes.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return from_onnx(model)


@relax.expr_functor.mutator
class _Copier(relax.PyExprMutator):
    """Copies an imported function's body into a function under construction."""

    def __init__(self, builder: relax.BlockBuilder, module: tvm.IRModule,
                 parameters: dict[relax.Var, relax.Expr]) -> None:
        super().__init__()
        self._target, self._module, self._known = builder, module, dict(parameters)
        self._functions: dict[tvm.ir.GlobalVar, tvm.ir.GlobalVar] = {}

    def copy(self, body: relax.SeqExpr) -> relax.Expr:
        """Emit all bindings; what the function returns comes back."""
        for block in body.blocks:
            for binding in block.bindings:
                value = self.visit_expr(binding.value)
                # What is taken out of a tuple that was emitted has lost its type.
                self._known[binding.var] = value if isinstance(value, relax.Tuple) else self._target.emit(value)
        return self.visit_expr(body.body)

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        return self._known[var]

    def visit_dataflow_var_(self, var: relax.DataflowVar) -> relax.Expr:
        return self._known[var]

    def visit_global_var_(self, var: tvm.ir.GlobalVar) -> relax.Expr:
        if var not in self._functions:
            # Without the name it had: another node may have brought a function of the same one.
            function = self._module[var].without_attr("global_symbol")
            self._functions[var] = self._target.add_func(function, var.name_hint)
        return self._functions[var]
