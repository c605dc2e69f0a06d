"""BatchNormalization in training mode: by the batch's own mean and variance, which move the running ones."""

from __future__ import annotations

from tvm import relax

from onexn_plugins.tvm_backend.lowering.operators.numbers import number
from onexn_plugins.tvm_backend.reading.canonical import is_training
from onexn_plugins.tvm_backend.reading.graph import Graph, Node


def batch_normalisation(builder: relax.BlockBuilder, graph: Graph, node: Node,
                        inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """Output, running mean, running variance (of the population, as ONNX says)."""
    if not is_training(node):
        return None
    x, scale, shift, mean, variance = inputs
    shape = graph.shape(node.inputs[0])
    axes = [axis for axis in range(len(shape)) if axis != 1]
    channels = (shape[1], *(1 for _ in shape[2:]))

    def per_channel(value: relax.Expr) -> relax.Expr:
        return builder.emit(relax.op.reshape(value, channels))

    def moved(running: relax.Expr, now: relax.Expr) -> relax.Expr:
        momentum = node.attributes.get("momentum", 0.9)
        old = builder.emit(relax.op.multiply(running, number(graph, node, momentum)))
        return builder.emit(relax.op.add(old, builder.emit(relax.op.multiply(now, number(graph, node, 1 - momentum)))))

    batch_mean = builder.emit(relax.op.mean(x, axes))
    centred = builder.emit(relax.op.subtract(x, per_channel(batch_mean)))
    batch_variance = builder.emit(relax.op.mean(builder.emit(relax.op.multiply(centred, centred)), axes))
    epsilon = number(graph, node, node.attributes.get("epsilon", 1e-5))
    deviation = builder.emit(relax.op.sqrt(builder.emit(relax.op.add(batch_variance, epsilon))))
    unit = builder.emit(relax.op.divide(centred, per_channel(deviation)))
    scaled = builder.emit(relax.op.multiply(unit, per_channel(scale)))
    output = builder.emit(relax.op.add(scaled, per_channel(shift)))
    return [output, moved(mean, batch_mean), moved(variance, batch_variance)][:len(node.proto.output)]
