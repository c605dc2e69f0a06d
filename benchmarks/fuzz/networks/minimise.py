"""Makes a network smaller as long as it fails in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx
from onnx import ModelProto, ValueInfoProto

from onexn_plugins.tvm_backend.reading.subgraphs import values_read


def minimised(model: ModelProto, fails: Callable[[ModelProto], bool]) -> ModelProto:
    """The smallest network found that still fails: one output, and values in its middle as inputs."""
    while smaller := next((candidate for candidate in _smaller(model) if fails(candidate)), None):
        model = smaller
    return model


def _smaller(model: ModelProto) -> Iterator[ModelProto]:
    """Networks with fewer nodes: what one value depends on, then the same from the outputs of a node on."""
    # A shape that ONNX cannot tell leaves its value out.
    known = {item.name: item for item in onnx.shape_inference.infer_shapes(model).graph.value_info}
    known |= {item.name: item for item in model.graph.output}
    for node in model.graph.node:
        for name in filter(known.__contains__, node.output):
            yield from _if_smaller(model, between(model, [known[name]], []))
    for node in model.graph.node:
        if known.keys() >= set(node.output):
            yield from _if_smaller(model, between(model, list(model.graph.output),
                                                   [known[name] for name in node.output]))


def _if_smaller(model: ModelProto, candidate: ModelProto) -> Iterator[ModelProto]:
    if 0 < len(candidate.graph.node) < len(model.graph.node):
        yield candidate


def between(model: ModelProto, outputs: list[ValueInfoProto], inputs: list[ValueInfoProto]) -> ModelProto:
    """The nodes that these outputs need where those values are given."""
    needed, nodes = {item.name for item in outputs} - {item.name for item in inputs}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(set(values_read(node)) - {item.name for item in inputs})
    used = {name for node in nodes for name in values_read(node)}
    made = {name for node in nodes for name in node.output}
    result = ModelProto()
    result.CopyFrom(model)
    for name in ("node", "input", "output", "initializer", "value_info"):
        result.graph.ClearField(name)
    result.graph.node.extend(nodes[::-1])
    result.graph.input.extend(item for item in (*model.graph.input, *inputs) if item.name in used)
    result.graph.output.extend(item for item in outputs if item.name in made)
    result.graph.initializer.extend(item for item in model.graph.initializer if item.name in used)
    return result
