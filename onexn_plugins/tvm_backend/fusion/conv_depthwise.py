"""Conv + activation + depthwise Conv -> one kernel, block row by block row: what lies between stays in the cache."""

from __future__ import annotations

from onexn_plugins.tvm_backend import kernels
from onexn_plugins.tvm_backend.fusion.context import Context, KernelCall, conv_problem, describe
from onexn_plugins.tvm_backend.graph import Node
from onexn_plugins.tvm_backend.kernels import Unsupported


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
    second_weight, second_bias = context.weight(depthwise)
    second, decision = context.tail(depthwise), context.decide(node, problem.groups)
    tile = kernels.default_tile(problem, decision.block_size, context.unit)
    kernel = kernels.conv_depthwise(problem, weight, bias, first.epilogue, second_problem, second_weight, second_bias,
                                    second.epilogue, context.unit, tile)
    layers = (describe(context, node, "conv + depthwise", decision, tile),
              describe(context, depthwise, "depthwise", None, None, "computed with the convolution before it"))
    nodes = (node, *first.nodes, depthwise, *second.nodes)
    return KernelCall(nodes, kernel, (node.inputs[0], *second.residual), second.output, layers)
