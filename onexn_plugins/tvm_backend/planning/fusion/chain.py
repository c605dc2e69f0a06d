"""Nodes that one kernel may compute, one operator after the other, and the call of the kernel that does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from onexn_plugins.tvm_backend.kernels.choose import Chosen
from onexn_plugins.tvm_backend.kernels.problem import Epilogue, Kernel
from onexn_plugins.tvm_backend.kernels.request import Request, Stage
from onexn_plugins.tvm_backend.planning.layer import Layer
from onexn_plugins.tvm_backend.reading.graph import Node


@dataclass(frozen=True)
class Tail:
    """What follows an operator and is computed with it.

    Attributes:
        nodes: residual addition and activation, as far as a kernel takes them in.
        epilogue: the same in a kernel's words.
        residual: the other operand of the addition; empty where there is none.
        output: the value that all of it makes.
    """

    nodes: tuple[Node, ...]
    epilogue: Epilogue
    residual: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Link:
    """One operator of a chain: its node, what it asks of a kernel, what follows it, the activations that it reads
    besides what the one before it makes (without those the first one reads its node's first input), a note for reports.
    """

    node: Node
    stage: Stage
    tail: Tail
    inputs: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, eq=False)
class KernelCall:
    """A kernel of ours in the place of some nodes.

    Attributes:
        nodes: the nodes it replaces; the last one makes `output`.
        request: what the kernel is asked for.
        chosen: the family that serves it.
        inputs: the activations it reads: x, further ones, then the residual if there is one.
        output: the value it makes.
        layers: the layers it computes, for the report.
    """

    nodes: tuple[Node, ...]
    request: Request
    chosen: Chosen
    inputs: tuple[str, ...]
    output: str
    layers: tuple[Layer, ...] = ()

    @cached_property
    def kernel(self) -> Kernel:
        """What runs, emitted when it is first asked for."""
        return self.chosen.family.build(self.request)
