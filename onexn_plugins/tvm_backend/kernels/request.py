"""What a kernel is asked for: a chain of operators that one kernel computes, with their weights, on a vector unit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from onexn_plugins.pattern import BlockPattern, nonzero_blocks, nonzero_kernels
from onexn_plugins.tvm_backend.kernels.encode import Blocks, Encoded, encode
from onexn_plugins.tvm_backend.kernels.matrices import InstanceNorm, LayerNorm, MatMul, Softmax, Transpose
from onexn_plugins.tvm_backend.kernels.problem import (
    Choice,
    Conv,
    Conv3d,
    Epilogue,
    GlobalPool,
    Linear,
    Pool,
    Tile,
    Transposed,
)
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

PLAIN = Epilogue()
Problem = Conv | Linear | Pool | GlobalPool | MatMul | Softmax | LayerNorm | InstanceNorm | Transpose
_KINDS = {Linear: "linear", Pool: "pool", GlobalPool: "mean", MatMul: "matmul", Softmax: "softmax",
          LayerNorm: "layer norm", InstanceNorm: "instance norm", Transpose: "transpose"}


class Weights:
    """A layer's weight and bias, which is looked through and encoded once for every block size that is asked for.

    Args:
        values: float32 [out, in / groups, *kernel], in the layout of torch.
        bias: float32 [out].
        groups: conv groups.
    """

    def __init__(self, values: np.ndarray, bias: np.ndarray, groups: int = 1) -> None:
        self.values, self.bias, self.groups = values, bias, groups
        self._blocks: dict[int, Blocks] = {}
        self._encoded: dict[tuple[int, bool], Encoded] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.values, self.bias, self.groups)

    @cached_property
    def nonzero(self) -> torch.Tensor:
        """Which kernels hold anything but zeros, bool [out, in / groups]."""
        return nonzero_kernels(torch.from_numpy(np.ascontiguousarray(self.values)))

    @property
    def widest(self) -> int:
        """Output channels of a group: no block is larger."""
        return int(self.values.shape[0]) // self.groups

    def blocks(self, block_size: int) -> Blocks:
        """Which blocks of that size are kept, by number."""
        size = min(block_size, self.widest)
        if size not in self._blocks:
            pattern = BlockPattern.of(self.nonzero, size, self.groups)
            kept = int(nonzero_blocks(self.nonzero, pattern).count_nonzero())
            self._blocks[size] = Blocks(pattern, tuple(self.values.shape[2:]), kept)
        return self._blocks[size]

    def encoded(self, block_size: int, keep_all: bool = False) -> Encoded:
        """The weight in blocks of that size, without those that are zero or with all of them."""
        key = (min(block_size, self.widest), keep_all)
        if key not in self._encoded:
            self._encoded[key] = encode(self.values, key[0], self.groups, keep_all=keep_all)
        return self._encoded[key]


@dataclass(frozen=True, eq=False)
class Stage:
    """One operator of a chain.

    Attributes:
        problem: its geometry.
        weights: of a convolution or linear layer.
        epilogue: what follows its sums.
        choice: how its blocks are computed; None where it has none, or before that is chosen.
        scale, shift: one value for each element of a row, of a layer norm; for each channel, of an instance norm.
    """

    problem: Problem
    weights: Weights | None = None
    epilogue: Epilogue = PLAIN
    choice: Choice | None = None
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None

    @property
    def kind(self) -> str:
        """"conv", "depthwise", "conv3d", "depthwise3d", "transposed", "linear", "pool", "mean", "matmul", "softmax",
        "layer norm", "instance norm" or "transpose".

        A convolution of one channel is depthwise, too, unless a way of computing its blocks is chosen.
        """
        if isinstance(self.problem, Transposed):
            return "transposed"
        if isinstance(self.problem, Conv):
            kind = "depthwise" if self.problem.is_depthwise and self.choice is None else "conv"
            return f"{kind}3d" if isinstance(self.problem, Conv3d) else kind
        return _KINDS[type(self.problem)]

    @property
    def conv(self) -> Conv:
        """The problem of a convolution."""
        assert isinstance(self.problem, Conv)
        return self.problem

    @property
    def array(self) -> np.ndarray:
        """The weight as it came."""
        assert self.weights is not None
        return self.weights.values

    @property
    def bias(self) -> np.ndarray:
        assert self.weights is not None
        return self.weights.bias

    @property
    def tile(self) -> Tile:
        """Block size and vectors."""
        assert self.choice is not None
        return self.choice.tile

    @property
    def keeps_all(self) -> bool:
        """Zero blocks are computed, too."""
        return self.choice is not None and not self.choice.sparse

    @property
    def blocks(self) -> Blocks:
        """The blocks that are computed, without encoding them."""
        assert self.weights is not None
        found = self.weights.blocks(self.tile.block_size)
        return replace(found, num_blocks=found.pattern.num_blocks) if self.keeps_all else found

    @property
    def encoded(self) -> Encoded:
        assert self.weights is not None
        return self.weights.encoded(self.tile.block_size, self.keeps_all)


@dataclass(frozen=True, eq=False)
class Request:
    """A chain of operators, each of which alone reads the one before it, on a vector unit.

    The kernel's x is the first one's input, its residual and y are the last one's.
    """

    stages: tuple[Stage, ...]
    unit: VectorUnit

    @property
    def first(self) -> Stage:
        return self.stages[0]

    @property
    def last(self) -> Stage:
        return self.stages[-1]

    @property
    def chain(self) -> tuple[str, ...]:
        """The kinds of its stages."""
        return tuple(stage.kind for stage in self.stages)

    def with_choice(self, choice: Choice) -> Request:
        """The same, its first stage computed in that way."""
        return replace(self, stages=(replace(self.first, choice=choice), *self.stages[1:]))

    def in_place(self, allowed: bool) -> Request:
        """The same, with or without leave to write over the residual."""
        last = replace(self.last, epilogue=replace(self.last.epilogue, in_place=allowed))
        return replace(self, stages=(*self.stages[:-1], last))
