"""Conv + activation + depthwise Conv [+ activation + 1×1 Conv] -> one kernel: what lies between stays in the cache."""

from __future__ import annotations

from dataclasses import replace

from onexn_plugins.tvm_backend.kernels.problem import Unsupported
from onexn_plugins.tvm_backend.planning.fusion.context import (
    Context,
    KernelCall,
    algorithm_reason,
    conv_problem,
    describe,
)
from onexn_plugins.tvm_backend.planning.layer import Layer
from onexn_plugins.tvm_backend.planning.task import Task
from onexn_plugins.tvm_backend.reading.graph import Node

_WITH_THOSE_BEFORE = "computed with the convolution before it"


def fuse_conv_depthwise(context: Context, node: Node) -> KernelCall:
    """A convolution that a depthwise one alone reads."""
    task, nodes, residual = _pair(context, node)
    return _call(context, "conv + depthwise", task, nodes, (node.inputs[0], *residual))


def fuse_inverted_residual(context: Context, node: Node) -> KernelCall:
    """As fuse_conv_depthwise, with the 1×1 convolution that alone reads the depthwise one's output."""
    task, nodes, _ = _pair(context, node)
    last = context.next_node(nodes[-1].output)
    if last is None or last.op != "Conv" or last.inputs[0] != nodes[-1].output:
        raise Unsupported("no convolution follows the depthwise one")
    tail = context.tail(last)
    projected = Task(conv_problem(context, last), *context.weight(last), tail.epilogue)
    decision, choice = context.choose(last, projected)
    layer = describe(context, last, "conv", f"{decision.reason}; {_WITH_THOSE_BEFORE}", projected, decision,
                     choice.tile)
    task = replace(task, projection=(projected, choice))
    return _call(context, "conv + depthwise + conv", task, (*nodes, last, *tail.nodes),
                 (node.inputs[0], *tail.residual), layer)


def _pair(context: Context, node: Node) -> tuple[Task, tuple[Node, ...], tuple[str, ...]]:
    """A convolution and the depthwise one after it, all their nodes and the residual."""
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
    return task, (node, *first.nodes, depthwise, *second.nodes), second.residual


def _call(context: Context, operator: str, task: Task, nodes: tuple[Node, ...], inputs: tuple[str, ...],
          *others: Layer) -> KernelCall:
    """The call of the kernel that computes a task; `others` are its layers but the convolution and the depthwise."""
    first = nodes[0]
    depthwise = next(node for node in nodes[1:] if node.op == "Conv")
    decision, choice = context.choose(first, task)
    kernel = task.kernel(context.unit, choice)
    layers = (describe(context, first, operator, algorithm_reason(decision, kernel), task, decision, choice.tile),
              describe(context, depthwise, "depthwise", _WITH_THOSE_BEFORE), *others)
    return KernelCall(nodes, kernel, inputs, nodes[-1].output, layers, task, choice)
