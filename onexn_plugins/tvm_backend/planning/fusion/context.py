"""A graph as the fusion rules read it, and the call of the kernel that computes a chain."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import replace

import numpy as np

from onexn_plugins.tvm_backend.kernels.choose import choose
from onexn_plugins.tvm_backend.kernels.parts.tiling import default_tile
from onexn_plugins.tvm_backend.kernels.problem import Choice, Conv, Epilogue, Linear, Unsupported
from onexn_plugins.tvm_backend.kernels.request import Request, Stage, Weights
from onexn_plugins.tvm_backend.planning.choices import Choices
from onexn_plugins.tvm_backend.planning.fusion.activations import activation_after
from onexn_plugins.tvm_backend.planning.fusion.chain import KernelCall, Link, Tail
from onexn_plugins.tvm_backend.planning.layer import Layer
from onexn_plugins.tvm_backend.planning.plan import Decision, Planner
from onexn_plugins.tvm_backend.reading.folding import has_weight
from onexn_plugins.tvm_backend.reading.graph import Graph, Node, original_name
from onexn_plugins.tvm_backend.reading.transposed import as_conv_weight, in_two_axes

NO_BLOCKS = "depthwise layers have no 1×N blocks"
WITH_THOSE_BEFORE = "computed with the convolution before it"


class Context:
    """A graph, read by rules. What is asked twice is answered from memory: rules for the same node ask the same."""

    def __init__(self, graph: Graph, planner: Planner, choices: Choices | None = None) -> None:
        self.graph, self.planner, self.unit, self.choices = graph, planner, planner.unit, choices
        self._made: set[str] = set()  # values that kernels make
        self._ends: dict[Node, int] = {}  # where in the graph's order the call that covers a node runs
        self._last_read: dict[str, int] = {}  # where the last call runs that reads a value
        self._overwritten: set[str] = set()  # values that a call may write over
        self._makers = {name: node for node in graph.nodes for name in node.outputs}
        self._places = {node: place for place, node in enumerate(graph.nodes)}
        self._single = graph.single_consumers()
        self._consumers = graph.consumers()
        self._weights: dict[Node, Weights] = {}
        self._decisions: dict[Node, Decision] = {}
        self._tails: dict[tuple[Node, bool], Tail] = {}

    @property
    def covered(self) -> Set[Node]:
        """The nodes that a kernel call computes already."""
        return self._ends.keys()

    def next_node(self, value: str) -> Node | None:
        """The one node that reads this value, if there is just one and no kernel computes it already."""
        node = self._single.get(value)
        return None if node is None or node in self.covered else node

    def maker(self, value: str) -> Node | None:
        """The node that makes a value, where the caller does not."""
        return self._makers.get(value)

    def is_readable(self, value: str) -> bool:
        """Whether a later kernel may read it: it lies in memory, and nothing writes over it."""
        maker = self.maker(value)
        inside = maker is not None and maker in self.covered and value not in self._made
        return not inside and value not in self._overwritten and value not in self.graph.constants

    def weights(self, node: Node, groups: int = 1,
                part: Callable[[np.ndarray], np.ndarray] = lambda values: values) -> Weights:
        """Constant weight and bias of a Conv, ConvTranspose or Gemm; `part` says what of the weight is computed.

        Raises:
            Unsupported: they are computed at run time, or not float32.
        """
        if node not in self._weights:
            if not has_weight(self.graph, node) or self.graph.dtype(node.inputs[0]) != np.float32:
                raise Unsupported("the weight is no float32 constant")
            weight, bias = (self.graph.constants[name] for name in node.inputs[1:3])
            if node.op == "ConvTranspose":
                weight = in_two_axes(as_conv_weight(weight, groups))
            self._weights[node] = Weights(part(weight), bias, groups)
        return self._weights[node]

    def tail(self, node: Node, *, residual: bool = True) -> Tail:
        """Residual addition and activation after a layer, as far as a kernel can take them in."""
        key = (node, residual)
        if key not in self._tails:
            self._tails[key] = self._find_tail(node, residual)
        return self._tails[key]

    def _find_tail(self, node: Node, residual: bool) -> Tail:
        value, nodes = node.output, list[Node]()
        other: tuple[str, ...] = ()
        add = self.next_node(value) if residual else None
        if add is not None and add.op == "Add" and (operand := self._other_operand(add, value)):
            nodes, other, value = [add], (operand,), add.output
        activation, absorbed = activation_after(self.graph, self._consumers, value, self.covered)
        if absorbed:
            nodes, value = nodes + absorbed, absorbed[-1].output
        return Tail(tuple(nodes), Epilogue(bool(other), activation), other, value)

    def _other_operand(self, add: Node, value: str) -> str | None:
        """The other activation of an Add, where both have the output's shape."""
        others = [name for name in add.inputs if name != value]
        same = len(others) == 1 and others[0] in self.graph.specs
        return others[0] if same and self.graph.specs[others[0]] == self.graph.specs[value] else None

    def call(self, links: tuple[Link, ...]) -> KernelCall:
        """The call of the kernel that computes a chain.

        Raises:
            Unsupported: no family does.
        """
        decisions: list[Decision | None] = [None] * len(links)
        stages = [link.stage for link in links]
        for place in reversed(range(len(links))):  # what a later one is computed with is known to the first
            together = Request(tuple(stages[place:] if place == 0 else stages[place:place + 1]), self.unit)
            decisions[place], stages[place] = self._choose(links[place].node, together)
        tail = links[-1].tail
        request = Request(tuple(stages), self.unit).in_place(self._may_overwrite(tail))
        chosen = choose(request)
        method = chosen.family.method(request)
        layers = [self._describe(link, stage, decision, links if place == 0 else (), method if place == 0 else "")
                  for place, (link, stage, decision) in enumerate(zip(links, stages, decisions, strict=True))
                  if stage.weights is not None]
        layers = [replace(layer, family=chosen.family.name, refused=chosen.refused if place == 0 else ())
                  for place, layer in enumerate(layers)]
        nodes = tuple(node for link in links for node in (link.node, *link.tail.nodes))
        read = tuple(name for link in links for name in link.inputs) or links[0].node.inputs[:1]
        return KernelCall(nodes, request, chosen, (*read, *tail.residual), tail.output, tuple(layers))

    def _choose(self, node: Node, request: Request) -> tuple[Decision | None, Stage]:
        """How the first stage of a request is computed: as tuned, else as decided; None where it has no blocks."""
        stage, problem = request.first, request.first.problem
        if stage.kind not in ("conv", "conv3d", "transposed", "linear"):
            return None, stage
        assert isinstance(problem, (Conv, Linear))
        assert stage.weights is not None
        if node not in self._decisions:
            self._decisions[node] = self.planner.decide(problem, stage.weights, original_name(node.inputs[1]))
        decision = self._decisions[node]
        choice = Choice(decision.sparse, default_tile(problem, decision.block_size, self.unit))
        if self.choices:
            decision, choice = self.choices.apply(request, decision, choice)
        return decision, replace(stage, choice=choice)

    def _may_overwrite(self, tail: Tail) -> bool:
        """Whether the output may be written over the residual: all others that read it have run by then.

        It has to be the tensor of a kernel of ours that kernels alone read: other operators may give views of it.
        """
        if not tail.residual:
            return False
        residual, end = tail.residual[0], self._places[tail.nodes[-1]]
        if residual not in self._made or residual in self.graph.outputs:
            return False
        readers = [reader for reader in self._consumers[residual] if reader not in tail.nodes]
        if self._last_read.get(residual, -1) >= end:  # through a view, so that it is no reader in the graph
            return False
        return all(reader in self._ends and self._ends[reader] < end for reader in readers)

    def take(self, call: KernelCall) -> None:
        """Remember what a call covers and makes."""
        self._made.add(call.output)
        end = self._places[call.nodes[-1]]
        self._ends.update(dict.fromkeys(call.nodes, end))
        self._last_read.update((name, max(end, self._last_read.get(name, end))) for name in call.inputs)
        if call.request.last.epilogue.in_place:
            self._overwritten.add(call.inputs[-1])
        self._tails.clear()  # what follows a layer may be covered now

    def _describe(self, link: Link, stage: Stage, decision: Decision | None, links: tuple[Link, ...],
                  method: str) -> Layer:
        """The report line of a layer; `links` is the chain that begins with it, empty for those computed with it."""
        kinds = " + ".join(part.stage.kind for part in links) or stage.kind
        if decision is None:
            return describe_layer(self.graph, link.node, kinds, NO_BLOCKS if links else WITH_THOSE_BEFORE)
        reason = ", ".join(filter(None, (decision.reason, link.note, method)))
        return describe_layer(self.graph, link.node, kinds, reason if links else f"{reason}; {WITH_THOSE_BEFORE}",
                        decision, stage, self.planner)


Rule = Callable[[Context, Node], tuple[Link, ...]]


def describe_layer(graph: Graph, node: Node, operator: str, reason: str, decision: Decision | None = None,
             stage: Stage | None = None, planner: Planner | None = None) -> Layer:
    """The report line of a Conv, ConvTranspose or Gemm; without a decision on its stage every block is computed."""
    shape, output = graph.shape(node.inputs[1]), graph.shape(node.output)
    if node.op == "ConvTranspose":  # each weight multiplies each pixel of its channel
        uses = int(np.prod(graph.shape(node.inputs[0]))) // shape[0]
    else:
        uses = int(np.prod(output)) // shape[0]
    dense_macs = int(np.prod(shape)) * uses
    tile, speedup, seen = None, 1.0, 1.0
    if decision and stage and planner:
        assert isinstance(stage.problem, (Conv, Linear))
        tile, speedup = stage.tile, planner.expected_speedup(stage.problem, decision)
        if isinstance(stage.problem, Conv):  # taps may have been left out
            seen = stage.problem.taps / int(np.prod(shape[2:]))
    return Layer(
        name=layer_name(graph, node), operator=operator, shape=tuple(shape),
        sparse=decision is not None and decision.sparse,
        block_size=tile.block_size if tile else None,
        tile=f"{tile.block_size}x{tile.vectors}" if tile else None,
        kept=decision.kept if decision else 1.0,
        macs=round(dense_macs * decision.kept * seen) if decision else dense_macs,
        dense_macs=dense_macs, expected_speedup=speedup, reason=reason,
    )


def layer_name(graph: Graph, node: Node) -> str:
    """The layer's name in the trained model, as far as the file tells."""
    weight = original_name(node.inputs[1])
    if weight.endswith(".weight"):
        return weight.removesuffix(".weight")
    return node.name or weight or node.output
