"""Which tiles are worth a try for a layer, the likeliest first: a handful, as each costs a measurement."""

from __future__ import annotations

from collections.abc import Iterator

import tvm_ffi

from onexn_plugins.tvm_backend.kernels.choose import as_linear, kernel_of, sparse_vectors
from onexn_plugins.tvm_backend.kernels.parts.tiling import channels_at_once, default_tile
from onexn_plugins.tvm_backend.kernels.problem import Choice, Conv, Kernel, Linear, Tile
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.tuning.problem import kept_shares, own_block_size

MOST_VECTORS = 8
# Fewer sums than this leave the multiply-adders waiting for each other: 4 cycles of latency, two started per cycle.
FEWEST_SUMS = 8
# Larger blocks than the layer's own may hold so many times the blocks' share. Where vectors run over the channels of
# a block (linear layers), there is more to win.
CONV_SHARE, LINEAR_SHARE = 1.3, 2.5
# From this share of kept blocks on a dense kernel is worth a try, and below it a sparse one.
TRY_DENSE, TRY_SPARSE = 0.5, 0.98
DENSE_CONV_BLOCKS, DENSE_LINEAR_BLOCKS = (4, 8, 2, 16), (16, 32, 8, 4)


def candidates(request: Request, default: Choice, most: int | None = None) -> list[Choice]:
    """At most so many choices other than the default, each of which makes another kernel, the likeliest first."""
    seen = [kernel.func] if (kernel := _kernel(request, default)) else []
    found: list[Choice] = []
    unit = request.unit
    for choice in sorted(_choices(request, default), key=lambda choice: _distance(choice, default, unit)):
        if len(found) == most:
            break
        kernel = None if choice == default else _kernel(request, choice)
        if kernel is not None and not any(tvm_ffi.structural_equal(kernel.func, other) for other in seen):
            seen.append(kernel.func)
            found.append(choice)
    return found


def _choices(request: Request, default: Choice) -> Iterator[Choice]:
    problem, unit, shares = request.first.problem, request.unit, kept_shares(request.first)
    assert isinstance(problem, (Conv, Linear))
    own = own_block_size(shares)
    over_channels = sparse_vectors(problem, unit) == "channels"
    most = (LINEAR_SHARE if over_channels else CONV_SHARE) * shares[own]
    if shares[own] < TRY_SPARSE:
        for size, share in shares.items():
            if share <= min(most, TRY_SPARSE) and (size > 1 or own == 1):
                yield from [_one_tile(True, size, problem, unit)] if over_channels else _tiles(True, size, unit)
    if not default.sparse or shares[own] >= TRY_DENSE:
        is_linear = as_linear(problem) is not None
        for size in DENSE_LINEAR_BLOCKS if is_linear else DENSE_CONV_BLOCKS:
            if size in shares:
                yield from [_one_tile(False, size, problem, unit)] if is_linear else _tiles(False, size, unit)


def _one_tile(sparse: bool, block_size: int, problem: Conv | Linear, unit: VectorUnit) -> Choice:
    """Vectors over channels leave nothing to choose."""
    return Choice(sparse, default_tile(problem, block_size, unit))


def _tiles(sparse: bool, block_size: int, unit: VectorUnit) -> Iterator[Choice]:
    """Every number of vectors that registers allow."""
    channels = channels_at_once(block_size, unit)
    # Registers hold the sums, a vector of pixels each, and what is loaded of the weights.
    weights = -(-channels // unit.lanes) if unit.isa.multiplies_by_lane else 1
    fitting = [vectors for vectors in range(1, MOST_VECTORS + 1)
               if (channels + 1) * vectors + weights <= unit.registers] or [1]
    for vectors in fitting:
        if channels * vectors >= FEWEST_SUMS or vectors == fitting[-1]:
            yield Choice(sparse, Tile(block_size, vectors))


def _distance(choice: Choice, default: Choice, unit: VectorUnit) -> tuple[bool, int]:
    """The default's own blocks first, and tiles of about as many sums."""
    other_blocks = (choice.sparse, choice.tile.block_size) != (default.sparse, default.tile.block_size)
    return other_blocks, abs(_sums(choice, unit) - _sums(default, unit))


def _sums(choice: Choice, unit: VectorUnit) -> int:
    return channels_at_once(choice.tile.block_size, unit) * choice.tile.vectors


def _kernel(request: Request, choice: Choice) -> Kernel | None:
    """None where no code can be written for the choice: no default will ever ask for it."""
    try:
        return kernel_of(request.with_choice(choice))
    except Exception:  # besides Unsupported, TVM refuses what a family never was tried with
        return None
