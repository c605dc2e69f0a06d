"""When two layers are the same problem: geometry, what follows the sums, and which share of which blocks is kept."""

from __future__ import annotations

from onexn_plugins.tvm_backend.kernels.problem import Conv, Conv3d, Epilogue, Linear, Transposed
from onexn_plugins.tvm_backend.kernels.request import Request, Stage
from onexn_plugins.tvm_backend.planning.plan import BLOCK_SIZES

# Shares of kept blocks that differ by less make no other problem.
SHARE_STEP = 0.05
# Blocks of N hold this much more than the kernels that are not zero, and still count as the layer's own blocks.
_SLACK = 1.02


def kept_shares(stage: Stage) -> dict[int, float]:
    """Share of the 1×N blocks that are not zero, for every N that the layer is wide enough for."""
    assert stage.weights is not None
    return {size: stage.weights.blocks(size).density for size in BLOCK_SIZES if size <= stage.weights.widest}


def own_block_size(shares: dict[int, float]) -> int:
    """The largest N whose blocks hold hardly more than the kernels that are not zero."""
    return max(size for size, share in shares.items() if share <= _SLACK * shares[1])


def problem_of(request: Request) -> str:
    """The problem in words: equal for two requests of which one measurement serves both."""
    words = _words(request.first)
    for stage in request.stages[1:]:
        words += ["then", *_words(stage, with_choice=True)]
    return " ".join(words)


def _words(stage: Stage, *, with_choice: bool = False) -> list[str]:
    """A stage's geometry, blocks, how they are computed where that is given, and what follows its sums."""
    assert isinstance(stage.problem, (Conv, Linear))
    blocks = []
    if not stage.kind.startswith("depthwise"):
        blocks = [_pattern(stage), *([str(stage.choice)] if with_choice else [])]
    return [_geometry(stage.problem), *blocks, _epilogue(stage.epilogue)]


def _geometry(problem: Conv | Linear) -> str:
    if isinstance(problem, Linear):
        return f"linear {problem.batch}x{problem.in_features}->{problem.out_features}"
    frames = ""
    if isinstance(problem, Conv3d):
        before, after = problem.frame_padding
        frames = (f" frames {problem.depth} kernel {problem.frames} stride {problem.frame_stride} "
                  f"pad {before},{after} dilation {problem.frame_dilation}")
    image = f"{problem.batch}x{problem.in_channels}x{problem.height}x{problem.width}->{problem.out_channels}"
    kind, size = ("transposed", f" size {_pair(problem.size)}") if isinstance(problem, Transposed) else ("conv", "")
    return (f"{kind} {image} kernel {_pair(problem.kernel)} stride {_pair(problem.stride)} "
            f"pad {','.join(map(str, problem.padding))} dilation {_pair(problem.dilation)} groups {problem.groups}"
            f"{size}{frames}")


def _pattern(stage: Stage) -> str:
    shares = kept_shares(stage)
    if shares[1] == 1.0:
        return "dense"
    size = own_block_size(shares)
    return f"1x{size} {100 * SHARE_STEP * round(shares[size] / SHARE_STEP):.0f}%"


def _epilogue(epilogue: Epilogue) -> str:
    return f"{'+ residual ' if epilogue.residual else ''}{epilogue.activation or 'linear'}"


def _pair(values: tuple[int, int]) -> str:
    return f"{values[0]}x{values[1]}"
