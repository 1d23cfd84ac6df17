"""Draw a contact sheet of picture pairs: evaluation pictures next to the training pictures they resemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SIDE = 128
"""Pixels on each side of a picture; smaller pictures are enlarged."""
COLUMNS = 4
_GAP, _LINE = 8, 14
_INK, _PAPER, _FRAME = (20, 20, 20), (255, 255, 255), (200, 200, 200)


@dataclass(frozen=True)
class CaptionedPair:
    """Two pictures and the caption lines below them."""

    left: Image.Image
    right: Image.Image
    lines: tuple[str, ...]


def contact_sheet(pairs: Sequence[CaptionedPair]) -> Image.Image:
    """An RGB picture of all pairs, row by row; captions that are too long are shortened in the middle."""
    n_lines = max((len(pair.lines) for pair in pairs), default=0)
    width, height = 2 * SIDE + 3 * _GAP, SIDE + n_lines * _LINE + 2 * _GAP
    n_rows = -(-len(pairs) // COLUMNS)
    sheet = Image.new("RGB", (min(COLUMNS, max(len(pairs), 1)) * width, max(n_rows, 1) * height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)  # at the default size 10, blanks between words are too narrow
    for place, pair in enumerate(pairs):
        x, y = place % COLUMNS * width + _GAP, place // COLUMNS * height + _GAP
        for picture, left in ((pair.left, x), (pair.right, x + SIDE + _GAP)):
            fitted = _fitted(picture)
            draw.rectangle((left - 1, y - 1, left + SIDE, y + SIDE), outline=_FRAME)
            sheet.paste(fitted, (left + (SIDE - fitted.width) // 2, y + (SIDE - fitted.height) // 2))
        for number, line in enumerate(pair.lines):
            text = _cut(line, draw, font, width - 2 * _GAP)
            draw.text((x, y + SIDE + 2 + number * _LINE), text, fill=_INK, font=font)
    return sheet


def _fitted(picture: Image.Image) -> Image.Image:
    factor = SIDE / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS)


def _cut(line: str, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    shortened = line = " ".join(line.split())  # `textlength` refuses line breaks, which a file's name may hold
    while draw.textlength(shortened, font=font) > width and len(line) > 4:
        line = line[: len(line) // 2] + line[len(line) // 2 + 1 :]
        shortened = line[: len(line) // 2] + "..." + line[len(line) // 2 :]
    return shortened
