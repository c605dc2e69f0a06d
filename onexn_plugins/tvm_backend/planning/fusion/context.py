"""What the fusion rules share: what they read and what they return."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, replace

import numpy as np

from onexn_plugins.tvm_backend.kernels.parts.tiling import default_tile
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel, Tile, Unsupported
from onexn_plugins.tvm_backend.planning.fusion.activations import activation_after
from onexn_plugins.tvm_backend.planning.layer import Layer
from onexn_plugins.tvm_backend.planning.plan import Decision, Planner
from onexn_plugins.tvm_backend.planning.task import Choice, Choices, Task
from onexn_plugins.tvm_backend.reading.folding import has_weight
from onexn_plugins.tvm_backend.reading.graph import Graph, Node, original_name


@dataclass(frozen=True)
class KernelCall:
    """A kernel of ours in the place of some nodes.

    Attributes:
        nodes: the nodes it replaces; the last one makes `output`.
        kernel: what runs.
        inputs: the activations it reads: x, then the residual if there is one.
        output: the value it makes.
        layers: the layers it computes, for the report.
        task, choice: what the kernel was asked for and how it computes it; None where there is nothing to choose.
    """

    nodes: tuple[Node, ...]
    kernel: Kernel
    inputs: tuple[str, ...]
    output: str
    layers: tuple[Layer, ...] = ()
    task: Task | None = None
    choice: Choice | None = None


@dataclass(frozen=True)
class Tail:
    """What follows a layer and is computed with it."""

    nodes: tuple[Node, ...]
    epilogue: Epilogue
    residual: tuple[str, ...]
    output: str


class Context:
    """A graph, read by rules."""

    def __init__(self, graph: Graph, planner: Planner, choices: Choices | None = None) -> None:
        self.graph, self.planner, self.unit, self.choices = graph, planner, planner.unit, choices
        self._made: set[str] = set()  # values that kernels make
        self._ends: dict[Node, int] = {}  # where in the graph's order the call that covers a node runs
        self._places = {node: place for place, node in enumerate(graph.nodes)}
        self._single = graph.single_consumers()
        self._consumers = graph.consumers()

    @property
    def covered(self) -> Set[Node]:
        """The nodes that a kernel call computes already."""
        return self._ends.keys()

    def next_node(self, value: str) -> Node | None:
        """The one node that reads this value, if there is just one and no kernel computes it already."""
        node = self._single.get(value)
        return None if node is None or node in self.covered else node

    def weight(self, node: Node) -> tuple[np.ndarray, np.ndarray]:
        """Constant weight and bias of a Conv or Gemm.

        Raises:
            Unsupported: they are computed at run time, or not float32.
        """
        if not has_weight(self.graph, node) or self.graph.dtype(node.inputs[0]) != np.float32:
            raise Unsupported("the weight is no float32 constant")
        return self.graph.constants[node.inputs[1]], self.graph.constants[node.inputs[2]]

    def choose(self, node: Node, task: Task) -> tuple[Decision, Choice]:
        """How the layer of a Conv or Gemm is computed: as tuned, else as decided."""
        decision = self.planner.decide(task.problem, task.weight, original_name(node.inputs[1]))
        default = Choice(decision.sparse, default_tile(task.problem, decision.block_size, self.unit))
        return self.choices.apply(task, decision, default) if self.choices else (decision, default)

    def tail(self, node: Node, *, residual: bool = True) -> Tail:
        """Residual addition and activation after a layer, as far as a kernel can take them in."""
        value, nodes = node.output, list[Node]()
        other: tuple[str, ...] = ()
        add = self.next_node(value) if residual else None
        if add is not None and add.op == "Add" and (operand := self._other_operand(add, value)):
            nodes, other, value = [add], (operand,), add.output
        activation, absorbed = activation_after(self.graph, self._consumers, value, self.covered)
        if absorbed:
            nodes, value = nodes + absorbed, absorbed[-1].output
        return Tail(tuple(nodes), Epilogue(bool(other), activation), other, value)

    def in_place(self, task: Task, tail: Tail) -> Task:
        """The task, allowed to write over its residual where all others that read it have run by then.

        It has to be the tensor of a kernel of ours that kernels alone read: other operators may give views of it.
        """
        if not tail.residual or not self._is_last(tail):
            return task
        return replace(task, epilogue=replace(task.epilogue, in_place=True))

    def _is_last(self, tail: Tail) -> bool:
        residual, end = tail.residual[0], self._places[tail.nodes[-1]]
        if residual not in self._made or residual in self.graph.outputs:
            return False
        readers = [reader for reader in self._consumers[residual] if reader not in tail.nodes]
        return all(reader in self._ends and self._ends[reader] < end for reader in readers)

    def take(self, call: KernelCall) -> None:
        """Remember what a call covers and makes."""
        self._made.add(call.output)
        self._ends.update(dict.fromkeys(call.nodes, self._places[call.nodes[-1]]))

    def _other_operand(self, add: Node, value: str) -> str | None:
        """The other activation of an Add, where both have the output's shape."""
        others = [name for name in add.inputs if name != value]
        same = len(others) == 1 and others[0] in self.graph.specs
        return others[0] if same and self.graph.specs[others[0]] == self.graph.specs[value] else None


Rule = Callable[[Context, Node], KernelCall]


def layer_name(graph: Graph, node: Node) -> str:
    """The layer's name in the trained model, as far as the file tells."""
    weight = original_name(node.inputs[1])
    if weight.endswith(".weight"):
        return weight.removesuffix(".weight")
    return node.name or weight or node.output


def conv_problem(context: Context, node: Node) -> Conv:
    """The convolution that a Conv node asks for.

    Raises:
        Unsupported: it is not two-dimensional.
    """
    image, weight = context.graph.shape(node.inputs[0]), context.graph.shape(node.inputs[1])
    if len(image) != 4 or len(weight) != 4:
        raise Unsupported("only two-dimensional convolutions have kernels")
    attributes = node.attributes
    batch, in_channels, height, width = image
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return Conv(
        batch, in_channels, height, width, weight[0], kernel=(weight[2], weight[3]),
        stride=_pair(attributes.get("strides")), padding=(top, left, bottom, right),
        dilation=_pair(attributes.get("dilations")), groups=attributes.get("group", 1),
    )


def algorithm_reason(decision: Decision, kernel: Kernel) -> str:
    """Why a convolution is computed as it is, and by which algorithm where it is not the direct one."""
    return ", ".join(filter(None, (decision.reason, kernel.method)))


def describe(context: Context, node: Node, operator: str, reason: str, task: Task | None = None,
             decision: Decision | None = None, tile: Tile | None = None) -> Layer:
    """The report line of a Conv or Gemm; without a decision on its task every block is computed."""
    shape = context.graph.shape(node.inputs[1])
    output = context.graph.shape(node.output)
    positions = int(np.prod(output)) // shape[0]
    dense_macs = int(np.prod(shape)) * positions
    return Layer(
        name=layer_name(context.graph, node), operator=operator, shape=tuple(shape),
        sparse=decision is not None and decision.sparse,
        block_size=tile.block_size if tile else None,
        tile=f"{tile.block_size}x{tile.vectors}" if tile else None,
        kept=decision.kept if decision else 1.0,
        macs=round(dense_macs * decision.kept) if decision else dense_macs,
        dense_macs=dense_macs,
        expected_speedup=context.planner.expected_speedup(task.problem, decision) if task and decision else 1.0,
        reason=reason,
    )


def _pair(values: list[int] | None) -> tuple[int, int]:
    return (values[0], values[1]) if values else (1, 1)
