"""How many tokens a published processor makes of a square picture, by arithmetic; no processor is loaded.

Each kind is a family's way with pictures. What it is asked for is the largest square that `model.max_pixels` lets
through: the picture that a plan of memory counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

COUNTED_PIXELS = 512 * 512
"""Of the picture that is counted where nothing limits them."""


@dataclass(frozen=True)
class PictureSize:
    """What one picture becomes."""

    patches: int
    """Tokens in the vision tower."""
    tokens: int
    """Tokens in the language model."""
    tile: int
    """Patches that see each other in the vision tower; the picture is cut into tiles of so many."""


class PictureRule(Protocol):
    """A family's way with pictures."""

    def size(self, max_pixels: int | None) -> PictureSize:
        """Of the largest square picture that so many pixels allow; None: of one of `COUNTED_PIXELS`."""
        ...


def _side(max_pixels: int | None) -> int:
    return math.isqrt(max_pixels or COUNTED_PIXELS)


@dataclass(frozen=True)
class Scaled:
    """Every picture is brought to one size: LLaVA-1.5, PaliGemma, Gemma 3."""

    patches: int
    tokens: int

    def size(self, max_pixels: int | None) -> PictureSize:
        """The same of every picture."""
        return PictureSize(self.patches, self.tokens, self.patches)


@dataclass(frozen=True)
class Native:
    """Pictures keep their size, rounded to blocks of patches that become one token each: the Qwen-VLs."""

    patch: int
    longest: int
    """The publisher's own limit on pixels."""
    merge: int = 2

    def size(self, max_pixels: int | None) -> PictureSize:
        """Blocks of the rounded square."""
        block = self.patch * self.merge
        blocks = round(_side(max_pixels) / block)
        if (blocks * block) ** 2 > self.longest:
            blocks = math.isqrt(self.longest) // block
        patches = (blocks * self.merge) ** 2
        return PictureSize(patches, blocks**2, patches)


@dataclass(frozen=True)
class Enlarged:
    """Pictures are enlarged or shrunk to one longest edge, then cut into tiles, with an overview: Idefics3, SmolVLM."""

    longest: int
    edge: int
    """Of a tile."""
    patches: int
    tokens: int
    """Of a tile."""

    def size(self, max_pixels: int | None) -> PictureSize:
        """Tiles of the square, whose edge `max_pixels` limits."""
        longest = self.longest if max_pixels is None else min(self.longest, math.isqrt(max_pixels))
        return _tiled(math.ceil(longest / self.edge), self.patches, self.tokens)


@dataclass(frozen=True)
class Matched:
    """Pictures are cut into the grid of tiles that fits their shape and size best, with an overview: InternVL."""

    edge: int
    most: int
    """Tiles of the largest grid."""
    patches: int
    tokens: int

    def size(self, max_pixels: int | None) -> PictureSize:
        """The largest square grid of which the picture fills more than half."""
        most = self.most if max_pixels is None else max(1, min(self.most, max_pixels // self.edge**2))
        grids = range(2, math.isqrt(most) + 1)
        fitting = [1, *(n for n in grids if _side(max_pixels) ** 2 > 0.5 * (n * self.edge) ** 2)]
        return _tiled(fitting[-1], self.patches, self.tokens)


@dataclass(frozen=True)
class Fitted:
    """Pictures are put whole into the smallest grid of tiles that holds them, with an overview: LLaVA-OneVision.

    Features of more tiles than `whole` are brought down to as many; each row of features ends in a token of its own.
    """

    edge: int
    most: int
    """Tiles along an edge."""
    row: int
    """Patches along an edge of a tile."""
    whole: int

    def size(self, max_pixels: int | None) -> PictureSize:
        """Tiles and rows of the square."""
        tiles = min(self.most, math.ceil(_side(max_pixels) / self.edge))
        rows = min(tiles, math.isqrt(self.whole)) * self.row
        patches = self.row**2
        return PictureSize((tiles**2 + 1) * patches, patches + rows * (rows + 1), patches)


@dataclass(frozen=True)
class Sliced:
    """Pictures are cut into as many slices as their area has of one, with an overview: MiniCPM-V."""

    edge: int
    patch: int
    most: int
    merge: int
    """Patches along an edge that become one token."""

    def size(self, max_pixels: int | None) -> PictureSize:
        """The overview, and slices of a square that is larger than one."""
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
        """Blocks along the edges of a slice, which is enlarged or shrunk to the area of a whole one."""
        shape = width / height
        high, block = int(self.edge / math.sqrt(shape)), self.patch * self.merge
        return max(1, round(high / block)), max(1, round(int(high * shape) / block))


def _tiled(n: int, patches: int, tokens: int) -> PictureSize:
    """A square of n times n tiles and, where there are several, an overview."""
    tiles = n * n + (n > 1)
    return PictureSize(tiles * patches, tiles * tokens, patches)
