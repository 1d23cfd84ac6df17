"""Compute the number of tokens of a square picture for published processors, without loading a processor.

Each class is the rule of some model families. Memory plans count the largest square picture that `model.max_pixels`
allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

COUNTED_PIXELS = 512 * 512
"""Pixels of the counted picture if `model.max_pixels` sets no limit."""


@dataclass(frozen=True)
class PictureSize:
    """Numbers of tokens of a picture."""

    patches: int
    """Tokens in the vision tower."""
    tokens: int
    """Tokens in the language model."""
    tile: int
    """Patches per tile; only patches of the same tile attend to each other in the vision tower."""


class PictureRule(Protocol):
    """A model family's rule for the size of pictures."""

    def size(self, max_pixels: int | None) -> PictureSize:
        """Size of the largest square picture within `max_pixels`, or of `COUNTED_PIXELS` if it is None."""
        ...


def _side(max_pixels: int | None) -> int:
    return math.isqrt(max_pixels or COUNTED_PIXELS)


@dataclass(frozen=True)
class FixedResolution:
    """Every picture is resized to the same size: LLaVA-1.5, PaliGemma, Gemma 3."""

    patches: int
    tokens: int

    def size(self, max_pixels: int | None) -> PictureSize:
        """The same size for every picture."""
        return PictureSize(self.patches, self.tokens, self.patches)


@dataclass(frozen=True)
class NativeResolution:
    """Pictures keep their size, rounded to blocks of patches; each block becomes a token: Qwen-VL."""

    patch: int
    longest: int
    """The processor's default limit on pixels."""
    merge: int = 2

    def size(self, max_pixels: int | None) -> PictureSize:
        """Size of the rounded square."""
        block = self.patch * self.merge
        blocks = round(_side(max_pixels) / block)
        if (blocks * block) ** 2 > self.longest:
            blocks = math.isqrt(self.longest) // block
        patches = (blocks * self.merge) ** 2
        return PictureSize(patches, blocks**2, patches)


@dataclass(frozen=True)
class TiledLongestEdge:
    """Pictures are resized to a fixed longest edge, then cut into tiles, plus an overview: Idefics3, SmolVLM."""

    longest: int
    edge: int
    """Pixels of a tile's edge."""
    patches: int
    tokens: int
    """Tokens of a tile."""

    def size(self, max_pixels: int | None) -> PictureSize:
        """Size of the square, whose edge `max_pixels` limits."""
        longest = self.longest if max_pixels is None else min(self.longest, math.isqrt(max_pixels))
        return _tiled(math.ceil(longest / self.edge), self.patches, self.tokens)


@dataclass(frozen=True)
class TiledBestGrid:
    """Pictures are cut into the grid of tiles that fits their shape and size best, plus an overview: InternVL."""

    edge: int
    most: int
    """Number of tiles of the largest grid."""
    patches: int
    tokens: int

    def size(self, max_pixels: int | None) -> PictureSize:
        """Size of the largest square grid that the picture fills by more than half."""
        most = self.most if max_pixels is None else max(1, min(self.most, max_pixels // self.edge**2))
        grids = range(2, math.isqrt(most) + 1)
        sides = [1, *(n for n in grids if _side(max_pixels) ** 2 > 0.5 * (n * self.edge) ** 2)]
        return _tiled(sides[-1], self.patches, self.tokens)


@dataclass(frozen=True)
class TiledSmallestGrid:
    """Pictures are padded to the smallest grid of tiles that holds them, plus an overview: LLaVA-OneVision.

    Features of more than `whole` tiles are pooled to `whole` tiles; an additional token ends each row of features.
    """

    edge: int
    most: int
    """Largest number of tiles along an edge."""
    row: int
    """Number of patches along an edge of a tile."""
    whole: int

    def size(self, max_pixels: int | None) -> PictureSize:
        """Size of the square, with the tokens that end rows."""
        tiles = min(self.most, math.ceil(_side(max_pixels) / self.edge))
        rows = min(tiles, math.isqrt(self.whole)) * self.row
        patches = self.row**2
        return PictureSize((tiles**2 + 1) * patches, patches + rows * (rows + 1), patches)


@dataclass(frozen=True)
class AdaptiveSlices:
    """Pictures are cut into as many slices as their area requires, plus an overview: MiniCPM-V."""

    edge: int
    patch: int
    most: int
    merge: int
    """Number of patches along an edge that become one token."""

    def size(self, max_pixels: int | None) -> PictureSize:
        """Size of the overview and, for a square larger than a slice, of its slices."""
        side, whole = _side(max_pixels), (self.edge // (self.patch * self.merge)) ** 2
        tokens = whole + (self._slices(side) if side > self.edge else 0)
        return PictureSize(tokens * self.merge**2, tokens, whole * self.merge**2)

    def _slices(self, side: int) -> int:
        """Tokens of all slices."""
        most = min(math.ceil(side**2 / self.edge**2), self.most)
        counts = [n for n in (most - 1, most, most + 1) if 1 < n <= self.most]
        grids = [(rows, n // rows) for n in counts for rows in range(1, n + 1) if n % rows == 0]
        rows, columns = min(grids, key=lambda grid: abs(math.log(grid[1] / grid[0])))
        height, width = self._slice(side / rows, side / columns)
        height, width = self._slice(side / rows, side / columns)
        return rows * columns * height * width

    def _slice(self, height: float, width: float) -> tuple[int, int]:
        """Number of blocks along the edges of a slice, which is resized to the area of a full slice."""
        shape = width / height
        high, block = int(self.edge / math.sqrt(shape)), self.patch * self.merge
        return max(1, round(high / block)), max(1, round(int(high * shape) / block))


def _tiled(n: int, patches: int, tokens: int) -> PictureSize:
    """Size of a square of n times n tiles, plus an overview if there are several."""
    tiles = n * n + (n > 1)
    return PictureSize(tiles * patches, tiles * tokens, patches)
