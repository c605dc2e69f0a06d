"""Networks in half precision are computed in float32: constants and inputs are widened, and what the file says is
float16 is rounded where it leaves the network or is cast.

onnxruntime does the same on processors: between two operators nothing is rounded to float16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from onexn_plugins.tvm_backend.reading.expansion.parts import Writer
from onexn_plugins.tvm_backend.reading.graph import Graph, Node, TensorSpec

HALF, WIDE = np.dtype(np.float16), np.dtype(np.float32)
# What says a type, or decides by it; subgraphs come apart first.
_TYPED = frozenset({"BitCast", "Cast", "CastLike", "DequantizeLinear", "QuantizeLinear"})


class Wide:
    """Remembers the float32 value that each float16 one was rounded from."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._wide: dict[str, str] = {}

    def applies(self, node: Node) -> bool:
        """Whether the operator reads float16 values and computes with them."""
        reads = any(self._graph.dtype(name) == HALF for name in node.inputs if name)
        return reads and node.op not in _TYPED and not node.subgraphs

    def nodes(self, node: Node) -> Iterator[Node]:
        """The operator on float32 values. Its outputs have names of their own; see `rounded`."""
        names: dict[str, str] = {}
        for name in filter(None, dict.fromkeys(node.inputs)):
            if self._graph.dtype(name) != HALF:
                continue
            if name not in self._wide:
                yield from self._widened(node, name)
            names[name] = self._wide[name]
        yield node.rewired(names).renamed({name: self._graph.new_name(name) for name in node.outputs},
                                          outputs_only=True)

    def rounded(self, node: Node, computed: Node, stated: Mapping[str, TensorSpec]) -> Iterator[Node]:
        """What gives the operator's own outputs, of which later operators in float32 read the wide ones. Of `stated`
        types some are float32 also where inputs are not: means that a normalisation tells.
        """
        for name, wide in zip(node.outputs, computed.outputs, strict=True):
            write = Writer(self._graph, node)
            if self._graph.dtype(wide) == WIDE and (name not in stated or stated[name].dtype == HALF):
                self._wide[name] = wide
                write.cast(wide, HALF, to=name)
            else:
                write("Identity", wide, to=name)
            yield from write.nodes

    def _widened(self, node: Node, name: str) -> Iterator[Node]:
        """The float32 value of a float16 constant or input."""
        graph = self._graph
        if name in graph.constants:
            self._wide[name] = graph.add_constant(graph.constants[name].astype(WIDE), name)
            return
        write = Writer(graph, node)
        self._wide[name] = write.cast(name, WIDE)
        yield from write.nodes
