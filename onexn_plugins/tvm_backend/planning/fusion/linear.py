"""Gemm + bias [+ residual] [+ activation] -> one kernel."""

from __future__ import annotations

from onexn_plugins.tvm_backend.kernels.problem import Linear
from onexn_plugins.tvm_backend.planning.fusion.context import Context, KernelCall, describe
from onexn_plugins.tvm_backend.planning.task import Task
from onexn_plugins.tvm_backend.reading.graph import Node


def fuse_linear(context: Context, node: Node) -> KernelCall:
    """A linear layer in canonical form: x [rows, in], weight [out, in]."""
    weight, bias = context.weight(node)
    problem = Linear(context.graph.shape(node.inputs[0])[0], weight.shape[1], weight.shape[0])
    tail = context.tail(node)
    task = Task(problem, weight, bias, tail.epilogue)
    decision, choice = context.choose(node, task)
    layer = describe(context, node, "linear", decision.reason, task, decision, choice.tile)
    return KernelCall((node, *tail.nodes), task.kernel(context.unit, choice), (node.inputs[0], *tail.residual),
                      tail.output, (layer,), task, choice)
