"""Conv + activation + depthwise Conv -> one kernel, block row by block row: what lies between stays in the cache."""

from __future__ import annotations

from onexn_plugins.tvm_backend.fusion.context import Context, KernelCall, algorithm_reason, conv_problem, describe
from onexn_plugins.tvm_backend.graph import Node
from onexn_plugins.tvm_backend.kernels import Unsupported
from onexn_plugins.tvm_backend.task import Task


def fuse_conv_depthwise(context: Context, node: Node) -> KernelCall:
    """A convolution that a depthwise one alone reads."""
    problem = conv_problem(context, node)
    weight, bias = context.weight(node)
    if problem.is_depthwise:
        raise Unsupported("the first convolution is depthwise itself")
    first = context.tail(node, residual=False)
    depthwise = context.next_node(first.output)
    if depthwise is None or depthwise.op != "Conv" or depthwise.inputs[0] != first.output:
        raise Unsupported("no depthwise convolution follows")
    second_problem = conv_problem(context, depthwise)
    if not second_problem.is_depthwise:
        raise Unsupported("the convolution that follows is not depthwise")
    second = context.tail(depthwise)
    task = Task(problem, weight, bias, first.epilogue,
                Task(second_problem, *context.weight(depthwise), second.epilogue))
    decision, choice = context.choose(node, task)
    kernel = task.kernel(context.unit, choice)
    reason = algorithm_reason(decision, kernel)
    layers = (describe(context, node, "conv + depthwise", reason, task, decision, choice.tile),
              describe(context, depthwise, "depthwise", "computed with the convolution before it"))
    nodes = (node, *first.nodes, depthwise, *second.nodes)
    return KernelCall(nodes, kernel, (node.inputs[0], *second.residual), second.output, layers, task, choice)
