"""Conv + bias [+ residual] [+ activation] -> one kernel; depthwise layers have a kernel family of their own."""

from __future__ import annotations

from onexn_plugins.tvm_backend.kernels.channelwise.depthwise import depthwise
from onexn_plugins.tvm_backend.kernels.problem import Unsupported
from onexn_plugins.tvm_backend.planning.fusion.context import (
    Context,
    KernelCall,
    algorithm_reason,
    conv_problem,
    describe,
)
from onexn_plugins.tvm_backend.planning.task import Task
from onexn_plugins.tvm_backend.reading.graph import Node


def fuse_conv(context: Context, node: Node) -> KernelCall:
    """Any two-dimensional convolution but a depthwise one."""
    problem, (weight, bias), tail = conv_problem(context, node), context.weight(node), context.tail(node)
    task = Task(problem, weight, bias, tail.epilogue)
    decision, choice = context.choose(node, task)
    kernel = context.in_place(task, tail).kernel(context.unit, choice)
    layer = describe(context, node, "conv", algorithm_reason(decision, kernel), task, decision, choice.tile)
    return KernelCall((node, *tail.nodes), kernel, (node.inputs[0], *tail.residual), tail.output, (layer,), task,
                      choice)


def fuse_depthwise(context: Context, node: Node) -> KernelCall:
    """One filter per channel: there is no block to skip."""
    problem = conv_problem(context, node)
    if not problem.is_depthwise:
        raise Unsupported("not depthwise")
    weight, bias = context.weight(node)
    tail = context.tail(node)
    kernel = depthwise(problem, weight, bias, tail.epilogue, context.unit)
    layer = describe(context, node, "depthwise", "depthwise layers have no 1×N blocks")
    return KernelCall((node, *tail.nodes), kernel, (node.inputs[0], *tail.residual), tail.output, (layer,))
