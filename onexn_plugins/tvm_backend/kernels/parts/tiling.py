"""How sums are cut to fit the vector registers: channels of a block, vectors of pixels, and what is left over."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from onexn_plugins.tvm_backend.kernels.code.vector import pieces
from onexn_plugins.tvm_backend.kernels.problem import Conv, Linear, Tile
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit


@dataclass(frozen=True)
class PixelTile:
    """Pixels summed at once.

    Attributes:
        widths: lanes of each vector of consecutive pixels.
        columns: single pixels after them, summed transposed: one vector over the output channels each.
    """

    widths: tuple[int, ...]
    columns: int = 0

    @property
    def starts(self) -> list[int]:
        """First pixel of each vector."""
        return [sum(self.widths[:index]) for index in range(len(self.widths))]

    @property
    def column_starts(self) -> range:
        first = sum(self.widths)
        return range(first, first + self.columns)


@dataclass(frozen=True)
class Cut:
    """A run of pixels as `repeats` equal tiles and a last one."""

    tile: PixelTile
    repeats: int
    rest: PixelTile | None

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return self.repeats + (self.rest is not None)

    @property
    def rest_start(self) -> int:
        return self.repeats * sum(self.tile.widths)

    @property
    def pixels_at_once(self) -> int:
        """Pixels in the vectors of the largest tile."""
        return max(sum(tile.widths) for tile in (self.tile, self.rest or self.tile))

    def paired(self) -> Cut:
        """The same tiles with neighbouring vectors as one of twice the lanes."""
        return Cut(_paired(self.tile), self.repeats, None if self.rest is None else _paired(self.rest))


def default_tile(problem: Conv | Linear, block_size: int, unit: VectorUnit) -> Tile:
    """The tile for a layer: as many pixel vectors as registers allow beside block_size channels."""
    channels, measured = channels_at_once(block_size, unit), unit.measured
    if measured.fills_registers:
        sums = (unit.registers - 1) // (channels + 1) * channels
    else:
        one_tap = isinstance(problem, Linear) or problem.is_pointwise
        sums = measured.pointwise_sums if one_tap else measured.sums
    return Tile(block_size, max(1, min(8, sums // channels)))


def channels_at_once(count: int, unit: VectorUnit, sums: int = 1) -> int:
    """Channels of a block summed together, `sums` registers each: all, or halves where registers would not do."""
    most = unit.measured.channels
    if sums > 1:
        most = unit.registers // 2 if unit.isa.multiplies_by_lane else unit.registers - 4
    while count > 1 and count * sums > most:
        count = -(-count // 2)
    return count


def cut_pixels(pixels: int, tile: Tile, unit: VectorUnit, *, padded: bool = False) -> Cut:
    """Cut `pixels` into tiles of full vectors; the left-over joins the last tile where registers allow.

    Args:
        pixels: how many there are.
        tile: block size and vectors per tile.
        unit: vector registers.
        padded: source and destination have a vector's length to spare, so the last vector may run over the end.
    """
    channels = channels_at_once(tile.block_size, unit)
    full = PixelTile((unit.lanes,) * tile.vectors)
    repeats, left = divmod(pixels, tile.vectors * unit.lanes)
    if not left:
        return Cut(full, repeats, None)
    rest = covering(left, unit) if padded else left_over(left, channels, unit)
    joined = PixelTile(full.widths + rest.widths, rest.columns)
    if repeats and _sums(joined, channels, unit) <= unit.measured.joined_sums:
        return Cut(full, repeats - 1, joined)
    return Cut(full, repeats, rest)


def tile_pixels(cut: Cut, channels: int, unit: VectorUnit) -> list[float]:
    """What each tile of a cut costs, as pixels of full vectors that cost as much."""
    tiles = [cut.tile] * cut.repeats + ([] if cut.rest is None else [cut.rest])
    return [unit.lanes * _sums(tile, channels, unit) / channels for tile in tiles]


def left_over(pixels: int, channels: int, unit: VectorUnit) -> PixelTile:
    """The cheapest mix of full vectors, shorter ones and transposed columns for fewer pixels than a tile."""
    full, left = divmod(pixels, unit.lanes)
    short = pieces(left, unit.lanes // 2)
    vectors_per_column = len(pieces(channels, unit.lanes))

    def cost(used: int) -> int:
        return used * channels + (left - sum(short[:used])) * vectors_per_column

    used = min(range(len(short), -1, -1), key=cost)
    return PixelTile((unit.lanes,) * full + tuple(short[:used]), left - sum(short[:used]))


def _paired(tile: PixelTile) -> PixelTile:
    widths: list[int] = []
    for _, equal in groupby(tile.widths):
        same = list(equal)
        pairs, odd = divmod(len(same), 2)
        widths += [2 * same[0]] * pairs + same[:odd]
    return PixelTile(tuple(widths), tile.columns)


def covering(pixels: int, unit: VectorUnit) -> PixelTile:
    """Full vectors that cover the pixels; the last is as short as covers what is left, but no shorter than 4 lanes."""
    full, left = divmod(pixels, unit.lanes)
    last = max(4, 1 << (left - 1).bit_length()) if left else 0
    return PixelTile((unit.lanes,) * full + ((last,) if last else ()))


def _sums(tile: PixelTile, channels: int, unit: VectorUnit) -> int:
    """Registers the sums of a tile take."""
    return len(tile.widths) * channels + tile.columns * len(pieces(channels, unit.lanes))
