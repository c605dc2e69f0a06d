"""How pixels and channels are cut into registers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.code.vector import channel_stride, pieces, strip_width
from onexn_plugins.tvm_backend.kernels.parts.tiling import (
    Cut,
    PixelTile,
    channels_at_once,
    covering,
    cut_pixels,
    default_tile,
    left_over,
    tile_pixels,
)
from onexn_plugins.tvm_backend.kernels.problem import Conv, Linear, Tile
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from tests.strategies import block_sizes
from tests.tvm_backend.kernels.differential import AVX2, AVX512, NEON, NEON_V7, UNITS, units

pixel_counts = st.integers(1, 700)
problems = st.sampled_from([Conv(1, 16, 7, 7, 16), Conv(1, 16, 7, 7, 16, (3, 3)), Linear(5, 16, 16)])


def pixels_of(tile: PixelTile, start: int = 0) -> list[int]:
    """Every pixel that a tile sums, as often as it does."""
    vectors = [start + first + lane for first, width in zip(tile.starts, tile.widths, strict=True)
               for lane in range(width)]
    return vectors + [start + column for column in tile.column_starts]


def all_pixels(cut: Cut) -> list[int]:
    step = sum(cut.tile.widths) + cut.tile.columns
    pixels = [pixel for repeat in range(cut.repeats) for pixel in pixels_of(cut.tile, repeat * step)]
    return pixels + ([] if cut.rest is None else pixels_of(cut.rest, cut.rest_start))


def registers(tile: PixelTile, channels: int, unit: VectorUnit) -> int:
    """Sums that are kept: a register for each channel and vector, and for each column vectors over the channels."""
    return len(tile.widths) * channels + tile.columns * len(pieces(channels, unit.lanes))


@given(st.integers(0, 200), st.sampled_from([1, 2, 4, 8, 16]))
def test_pieces_are_powers_of_two_that_add_up(count: int, lanes: int):
    widths = pieces(count, lanes)
    assert sum(widths) == count
    assert widths == sorted(widths, reverse=True)
    assert all(width <= lanes and width & (width - 1) == 0 for width in widths)
    assert len(widths) == count // lanes + (count % lanes).bit_count(), "no fewer do"


@given(st.integers(1, 200), st.sampled_from([1, 2, 4, 8, 16]))
def test_a_strip_is_the_widest_vector_that_fits(count: int, lanes: int):
    width = strip_width(count, lanes)
    assert width <= min(count, lanes)
    assert width & (width - 1) == 0
    assert width == lanes or 2 * width > count


@given(st.integers(1, 5000), st.sampled_from([4, 8, 16]))
def test_channels_lie_an_odd_number_of_whole_vectors_apart(values: int, lanes: int):
    vectors, rest = divmod(channel_stride(values, lanes), lanes)
    assert rest == 0
    assert vectors % 2 == 1
    assert values <= vectors * lanes < values + 2 * lanes


@given(pixel_counts, problems, block_sizes, units)
def test_every_pixel_is_in_one_tile(pixels, problem, block_size, unit):
    cut = cut_pixels(pixels, default_tile(problem, block_size, unit), unit)
    assert sorted(all_pixels(cut)) == list(range(pixels))
    assert cut.count == cut.repeats + (cut.rest is not None) > 0
    assert cut.pixels_at_once == max(sum(tile.widths) for tile in (cut.tile, cut.rest or cut.tile))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("block_size", [1, 2, 4, 8, 16, 32])
def test_sums_fit_into_registers(block_size, unit):
    """Beside a pixel and a weight; what is left over of blocks of an odd size may take more, which is slow, not wrong.
    """
    channels = channels_at_once(block_size, unit)
    for problem in (Conv(1, 16, 7, 7, 16), Conv(1, 16, 7, 7, 16, (3, 3))):
        for pixels in range(1, 200):
            cut = cut_pixels(pixels, default_tile(problem, block_size, unit), unit)
            assert registers(cut.tile, channels, unit) <= unit.registers - 3
            assert cut.rest is None or registers(cut.rest, channels, unit) < unit.registers


@given(pixel_counts, block_sizes, st.integers(1, 8), units)
def test_any_tile_covers_every_pixel_once(pixels, block_size, vectors, unit):
    assert sorted(all_pixels(cut_pixels(pixels, Tile(block_size, vectors), unit))) == list(range(pixels))


@given(pixel_counts, block_sizes, st.integers(1, 8), units)
def test_padded_pixels_run_over_by_less_than_a_vector(pixels, block_size, vectors, unit):
    covered = sorted(all_pixels(cut_pixels(pixels, Tile(block_size, vectors), unit, padded=True)))
    assert covered == list(range(len(covered)))
    assert pixels <= len(covered) < pixels + unit.lanes


@given(pixel_counts, problems, block_sizes, units)
def test_pairs_of_vectors_are_the_same_pixels(pixels, problem, block_size, unit):
    cut = cut_pixels(pixels, default_tile(problem, block_size, unit), unit)
    paired = cut.paired()
    assert all_pixels(paired) == all_pixels(cut)
    assert paired.rest_start == cut.rest_start
    assert len(paired.tile.widths) == -(-len(cut.tile.widths) // 2)
    assert max(paired.tile.widths) <= 2 * unit.lanes


@given(pixel_counts, block_sizes, units)
def test_a_tile_costs_its_pixels_if_its_vectors_are_full_and_else_more(pixels, block_size, unit):
    tile = default_tile(Conv(1, 8, 7, 7, 8), block_size, unit)
    cut = cut_pixels(pixels, tile, unit)
    costs = tile_pixels(cut, channels_at_once(block_size, unit), unit)
    assert len(costs) == cut.count
    assert sum(costs) >= pixels - 1e-6
    if pixels % unit.lanes == 0:
        assert sum(costs) == pytest.approx(pixels)


@given(st.integers(1, 127), st.integers(1, 16), units)
def test_what_is_left_over_takes_the_fewest_registers(pixels, channels, unit):
    rest = left_over(pixels, channels, unit)
    assert sorted(pixels_of(rest)) == list(range(pixels))
    full, left = divmod(pixels, unit.lanes)
    short = pieces(left, unit.lanes // 2)
    mixes = [PixelTile((unit.lanes,) * full + tuple(short[:used]), sum(short[used:])) for used in range(len(short) + 1)]
    assert registers(rest, channels, unit) == min(registers(mix, channels, unit) for mix in mixes)


@given(pixel_counts, units)
def test_vectors_that_cover_pixels_are_as_few_and_short_as_do(pixels, unit):
    *full, last = covering(pixels, unit).widths
    assert full == [unit.lanes] * len(full)
    assert 0 < pixels - sum(full) <= last <= unit.lanes
    assert last in (4, 8, 16)
    assert last == 4 or last // 2 < pixels - sum(full)


@given(st.integers(1, 32), st.integers(1, 3), units)
def test_channels_are_halved_until_registers_hold_their_sums(count, sums, unit):
    at_once = channels_at_once(count, unit, sums)
    assert 1 <= at_once <= count
    assert at_once * sums <= unit.registers - 4 or at_once == 1
    halves = [count]
    while halves[-1] > 1:
        halves.append(-(-halves[-1] // 2))
    assert at_once in halves


def test_the_tiles_that_were_measured_best():
    pointwise, spatial = Conv(1, 8, 7, 7, 8), Conv(1, 8, 7, 7, 8, (3, 3))
    tiles = {unit: [default_tile(pointwise, block_size, unit).vectors for block_size in (4, 8, 16)] for unit in UNITS}
    assert tiles[AVX512] == [4, 2, 1]
    assert tiles[AVX2][0] == 3
    assert tiles[NEON][:2] == [6, 3]
    assert default_tile(pointwise, 2, AVX2).vectors == 5
    assert default_tile(spatial, 4, NEON).vectors == 4
    assert default_tile(Linear(1, 8, 8), 4, NEON).vectors == 6
    assert tiles[NEON_V7] == [2, 1, 1]


@given(units)
def test_what_is_summed_at_once_leaves_registers_for_factors(unit):
    assert unit.registers // 2 <= unit.measured.sums < unit.registers - 2
    block = unit.measured.dense_block
    assert channels_at_once(block, unit) == block, "a block of a dense layer is summed as a whole"
