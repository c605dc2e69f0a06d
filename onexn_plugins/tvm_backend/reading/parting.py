"""Takes what was laid side by side apart where it came together, so that nothing is copied to be copied again.

YOLOv8's head lays the boxes of an image beside its scores, then those of three scales beside each other, and splits
the whole into boxes and scores: two copies of everything. Where a split's borders are a concatenation's, its parts are
that one's inputs.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import accumulate, pairwise

from onexn_plugins.tvm_backend.reading.canonical import reshape
from onexn_plugins.tvm_backend.reading.graph import Graph, Node, TensorSpec


def part_concatenations(graph: Graph) -> None:
    """Do away with every Split whose parts are there before they are laid side by side, in place."""
    makers: dict[str, Node] = {}  # as they read parts that were found before
    alone = graph.single_consumers()
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        node = node.rewired(renamed)
        makers.update(dict.fromkeys(node.outputs, node))
        made: list[Node] = []
        parts = _Parts(graph, makers, alone, made).of(node.inputs[0], *_cut(graph, node)) if _is_cut(node) else None
        if parts is None:
            nodes.append(node)
            continue
        nodes.extend(made)
        renamed.update(zip(node.outputs, parts, strict=True))
    graph.nodes = nodes
    graph.outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    graph.prune()


def _is_cut(node: Node) -> bool:
    return node.op == "Split" and all(node.proto.output)


def _cut(graph: Graph, node: Node) -> tuple[int, tuple[int, ...]]:
    """The axis of a Split, and how much of it each part takes."""
    shapes = [graph.shape(name) for name in node.outputs]
    axis = node.attributes.get("axis", 0) % len(shapes[0])
    return axis, tuple(shape[axis] for shape in shapes)


class _Parts:
    """Finds the parts of a value, and makes the nodes that give them.

    Args:
        graph: the network.
        makers: which node makes each value.
        alone: values that one node alone reads; of others, the copy is needed anyway.
        made: takes the nodes.
    """

    def __init__(self, graph: Graph, makers: Mapping[str, Node], alone: Container[str], made: list[Node]) -> None:
        self._graph, self._makers, self._alone, self._made = graph, makers, alone, made

    def of(self, value: str, axis: int, sizes: Sequence[int]) -> list[str] | None:
        """A value for each part; None where some part has to be copied out of the value."""
        node = self._makers.get(value)
        if node is None or value not in self._alone or 0 in sizes:
            return None
        if node.op == "Reshape":
            return self._reshaped(node, axis, sizes)
        if node.op != "Concat":
            return None
        rank = len(self._graph.shape(value))
        laid = node.attributes["axis"] % rank
        return self._inputs(node, axis, sizes) if laid == axis else self._across(node, laid, axis, sizes)

    def _inputs(self, node: Node, axis: int, sizes: Sequence[int]) -> list[str] | None:
        """Whole inputs of a concatenation along the same axis."""
        inputs = [name for name in node.inputs if self._graph.shape(name)[axis]]
        ends = list(accumulate(self._graph.shape(name)[axis] for name in inputs))
        borders = [0, *accumulate(sizes)]
        if not set(borders[1:]) <= set(ends):
            return None
        groups = [[name for name, end in zip(inputs, ends, strict=True) if first < end <= last]
                  for first, last in pairwise(borders)]
        return [self._laid(node, group, axis) for group in groups]

    def _across(self, node: Node, laid: int, axis: int, sizes: Sequence[int]) -> list[str] | None:
        """The same parts of every input of a concatenation along another axis, side by side."""
        found = [self.of(name, axis, sizes) for name in node.inputs]
        if any(parts is None for parts in found):
            return None
        return [self._laid(node, list(group), laid) for group in zip(*filter(None, found), strict=True)]

    def _reshaped(self, node: Node, axis: int, sizes: Sequence[int]) -> list[str] | None:
        """Parts of what is reshaped behind their axis alone, reshaped."""
        source, shape = node.inputs[0], self._graph.shape(node.output)
        if 0 in shape or self._graph.shape(source)[:axis + 1] != shape[:axis + 1]:
            return None
        parts = self.of(source, axis, sizes)
        if parts is None:
            return None
        shapes = [(*shape[:axis], size, *shape[axis + 1:]) for size in sizes]
        results = [self._new(node, part_shape) for part_shape in shapes]
        self._made += [reshape(self._graph, part, result, node.name)
                       for part, result in zip(parts, results, strict=True)]
        return results

    def _laid(self, node: Node, names: Sequence[str], axis: int) -> str:
        """Values side by side; one alone is itself."""
        if len(names) == 1:
            return names[0]
        shapes = [self._graph.shape(name) for name in names]
        result = self._new(node, (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1:]))
        self._made.append(Node.make("Concat", names, [result], node.name, axis=axis))
        return result

    def _new(self, node: Node, shape: tuple[int, ...]) -> str:
        return self._graph.add_value(TensorSpec(shape, self._graph.dtype(node.output)), node.output)
