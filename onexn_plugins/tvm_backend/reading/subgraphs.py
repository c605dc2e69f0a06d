"""The graphs inside a node: the branches of an If, the body of a Loop or Scan."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, NodeProto


def subgraphs_of(proto: NodeProto) -> Iterator[GraphProto]:
    """Each graph that the node may run."""
    for item in proto.attribute:
        if item.type == AttributeProto.GRAPH:
            yield item.g


def values_read(proto: NodeProto) -> Iterator[str]:
    """Every value that a node needs: its inputs, and what its subgraphs take from around them."""
    yield from (name for name in proto.input if name)
    for inner in subgraphs_of(proto):
        made = {item.name for item in (*inner.input, *inner.initializer)}
        made.update(name for node in inner.node for name in node.output)
        wanted = {name for node in inner.node for name in values_read(node)} | {item.name for item in inner.output}
        yield from sorted(wanted - made)
