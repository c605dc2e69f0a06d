"""When two layers are the same problem: geometry, what follows the sums, and which share of which blocks is kept."""

from __future__ import annotations

import numpy as np
import torch

from onexn_plugins.pattern import BlockPattern, nonzero_blocks, nonzero_kernels
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Linear
from onexn_plugins.tvm_backend.planning.plan import BLOCK_SIZES
from onexn_plugins.tvm_backend.planning.task import Task

# Shares of kept blocks that differ by less make no other problem.
SHARE_STEP = 0.05
# Blocks of N hold this much more than the kernels that are not zero, and still count as the layer's own blocks.
_SLACK = 1.02


def kept_shares(task: Task) -> dict[int, float]:
    """Share of the 1×N blocks that are not zero, for every N that the layer is wide enough for."""
    weight = torch.from_numpy(np.ascontiguousarray(task.weight))
    kernels = nonzero_kernels(weight)
    widest = weight.shape[0] // task.groups
    return {size: _kept(kernels, size, task.groups) for size in BLOCK_SIZES if size <= widest}


def own_block_size(shares: dict[int, float]) -> int:
    """The largest N whose blocks hold hardly more than the kernels that are not zero."""
    return max(size for size, share in shares.items() if share <= _SLACK * shares[1])


def problem_of(task: Task) -> str:
    """The problem in words: equal for two tasks of which one measurement serves both."""
    words = [_geometry(task.problem), _pattern(task), _epilogue(task.epilogue)]
    if task.depthwise is not None:
        words += ["then", _geometry(task.depthwise.problem), _epilogue(task.depthwise.epilogue)]
    if task.projection is not None:
        last, choice = task.projection
        words += ["then", _geometry(last.problem), _pattern(last), str(choice), _epilogue(last.epilogue)]
    return " ".join(words)


def _geometry(problem: Conv | Linear) -> str:
    if isinstance(problem, Linear):
        return f"linear {problem.batch}x{problem.in_features}->{problem.out_features}"
    image = f"{problem.batch}x{problem.in_channels}x{problem.height}x{problem.width}->{problem.out_channels}"
    return (f"conv {image} kernel {_pair(problem.kernel)} stride {_pair(problem.stride)} "
            f"pad {','.join(map(str, problem.padding))} dilation {_pair(problem.dilation)} groups {problem.groups}")


def _pattern(task: Task) -> str:
    shares = kept_shares(task)
    if shares[1] == 1.0:
        return "dense"
    size = own_block_size(shares)
    return f"1x{size} {100 * SHARE_STEP * round(shares[size] / SHARE_STEP):.0f}%"


def _epilogue(epilogue: Epilogue) -> str:
    return f"{'+ residual ' if epilogue.residual else ''}{epilogue.activation or 'linear'}"


def _pair(values: tuple[int, int]) -> str:
    return f"{values[0]}x{values[1]}"


def _kept(kernels: torch.Tensor, block_size: int, groups: int) -> float:
    pattern = BlockPattern.of(kernels, block_size, groups)
    return int(nonzero_blocks(kernels, pattern).count_nonzero()) / pattern.num_blocks
