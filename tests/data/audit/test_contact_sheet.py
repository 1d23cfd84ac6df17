"""The contact sheet: pictures of any size in their places, long names within theirs."""

from __future__ import annotations

import numpy as np
from PIL import Image

from forgetbench.data.audit.contact_sheet import COLUMNS, SIDE, CaptionedPair, contact_sheet


def pair(left: tuple[int, int], right: tuple[int, int], *lines: str) -> CaptionedPair:
    return CaptionedPair(Image.new("RGB", left, "red"), Image.new("RGB", right, "blue"), lines)


def test_pictures_of_any_size_and_shape_stand_side_by_side() -> None:
    sheet = contact_sheet([pair((8, 8), (3000, 100), "a")])
    width = sheet.width
    assert sheet.getpixel((8 + SIDE // 2, 8 + SIDE // 2)) == (255, 0, 0)
    assert sheet.getpixel((width - 8 - SIDE // 2, 8 + SIDE // 2)) == (0, 0, 255)
    assert sheet.getpixel((width - 8 - SIDE // 2, 8 + 4)) == (255, 255, 255)


def test_a_row_holds_so_many_pairs_and_no_name_runs_into_the_next() -> None:
    long = "a_set_with_a_long_name:train folder/within/a/folder/" + "W" * 300 + ".png"
    sheet = contact_sheet([pair((8, 8), (8, 8), long, "near")] * (COLUMNS + 1))
    single = contact_sheet([pair((8, 8), (8, 8), long, "near\na line break of a file's name")])
    assert sheet.size == (COLUMNS * single.width, 2 * single.height)
    text = np.asarray(single)[8 + SIDE + 2 :]
    assert (text < 128).any()
    assert (text[:, -4:] == 255).all()


def test_a_sheet_of_nothing_is_white() -> None:
    assert contact_sheet([]).getcolors() is not None
