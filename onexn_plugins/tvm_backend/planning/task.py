"""One layer as a kernel is asked for it, with or without the layers computed with it: what is planned and tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onexn_plugins.tvm_backend.kernels import choose
from onexn_plugins.tvm_backend.kernels.pairs.projection import Projection, projection
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel, Linear, Tile
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.planning.plan import Decision


@dataclass(frozen=True)
class Choice:
    """How a task is computed.

    Attributes:
        sparse: zero blocks are skipped.
        tile: block size and vectors.
    """

    sparse: bool
    tile: Tile

    def __str__(self) -> str:
        return f"{'sparse' if self.sparse else 'dense'} {self.tile.block_size}x{self.tile.vectors}"


class Choices(Protocol):
    """What is known better than the cost model: the answers of a tuning database."""

    def apply(self, task: Task, decision: Decision, default: Choice) -> tuple[Decision, Choice]:
        """The decision and choice to compile with, given those that would be taken otherwise."""


@dataclass(frozen=True, eq=False)
class Task:
    """A convolution or linear layer with what follows its sums.

    Attributes:
        problem: its geometry.
        weight, bias: float32, in the layout of torch.
        epilogue: residual and activation.
        depthwise: the depthwise layer computed with it.
        projection: the 1×1 layer after that, computed with both, and how.
    """

    problem: Conv | Linear
    weight: np.ndarray
    bias: np.ndarray
    epilogue: Epilogue
    depthwise: Task | None = None
    projection: tuple[Task, Choice] | None = None

    @property
    def groups(self) -> int:
        return self.problem.groups if isinstance(self.problem, Conv) else 1

    @property
    def last(self) -> Task:
        """The task whose output and residual the kernel has."""
        return self.projection[0] if self.projection else self.depthwise or self

    def kernel(self, unit: VectorUnit, choice: Choice) -> Kernel:
        """The kernel that computes it.

        Raises:
            Unsupported: there is none.
        """
        first = (self.weight, self.bias, self.epilogue)
        if isinstance(self.problem, Linear):
            return choose.linear(self.problem, *first, unit, choice.tile, keep_all=not choice.sparse)
        if self.depthwise is None:
            return choose.conv(self.problem, *first, unit, choice.tile, keep_all=not choice.sparse)
        second = self.depthwise
        assert isinstance(second.problem, Conv)
        return choose.conv_depthwise(self.problem, *first, second.problem, second.weight, second.bias, second.epilogue,
                                      unit, choice.tile, keep_all=not choice.sparse, projection=self._projection())

    def _projection(self) -> Projection | None:
        if self.projection is None:
            return None
        task, choice = self.projection
        assert isinstance(task.problem, Conv)
        return projection(task.problem, task.weight, task.bias, task.epilogue, choice.tile,
                                  keep_all=not choice.sparse)
