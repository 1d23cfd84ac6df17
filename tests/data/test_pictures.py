"""Pictures of every kind become the RGB that a viewer would show, or are refused by name."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from forgetbench.core.errors import UserError
from forgetbench.core.records import ImageRef
from forgetbench.data.pictures import decode_image

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
ORIENTATION = 0x0112


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    held = io.BytesIO()
    picture.save(held, kind, **options)
    return held.getvalue()


def decoded(data: bytes, max_pixels: int | None = None) -> Image.Image:
    return decode_image(ImageRef("table", "it.png", data), max_pixels)


def near(color: Any, wanted: tuple[int, int, int], within: int = 12) -> bool:
    return all(abs(value - wanted_value) <= within for value, wanted_value in zip(color, wanted, strict=True))


def quarters() -> Image.Image:
    """Above red and green, below blue and white."""
    picture = Image.new("RGB", (32, 16))
    for place, color in enumerate((RED, GREEN, BLUE, WHITE)):
        picture.paste(color, (place % 2 * 16, place // 2 * 8, place % 2 * 16 + 16, place // 2 * 8 + 8))
    return picture


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_every_format_shows_the_same_picture(kind: str) -> None:
    shown = decoded(encoded(quarters(), kind))
    assert (shown.mode, shown.size) == ("RGB", (32, 16))
    corners = [shown.getpixel((x, y)) for y in (3, 12) for x in (5, 26)]
    assert all(near(corner, color, 20) for corner, color in zip(corners, (RED, GREEN, BLUE, WHITE), strict=True))


@pytest.mark.parametrize(
    ("orientation", "size", "top_left"),
    [(1, (32, 16), RED), (2, (32, 16), GREEN), (3, (32, 16), WHITE), (6, (16, 32), BLUE), (8, (16, 32), GREEN)],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photograph_is_shown_the_way_the_camera_was_held(
    kind: str, orientation: int, size: tuple[int, int], top_left: tuple[int, int, int]
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    shown = decoded(encoded(quarters(), kind, exif=exif, quality=95))
    assert shown.size == size
    assert near(shown.getpixel((3, 3)), top_left, 20)


def test_broken_notes_of_the_camera_do_not_lose_the_picture() -> None:
    data = encoded(quarters(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95)
    assert near(decoded(data).getpixel((3, 3)), RED, 20)


def palette(transparency: int | bytes | None) -> Image.Image:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([*BLACK, *RED, *BLUE])
    picture.putpixel((0, 0), 2)
    if transparency is not None:
        picture.info["transparency"] = transparency
    return picture


@pytest.mark.parametrize(
    ("picture", "first", "second"),
    [
        (palette(None), BLUE, RED),
        (palette(2), WHITE, RED),
        (palette(bytes([255, 255, 127])), (128, 128, 255), RED),
        (Image.new("RGBA", (4, 4), (*RED, 0)), WHITE, WHITE),
        (Image.new("RGBA", (4, 4), (*RED, 255)), RED, RED),
        (Image.new("LA", (4, 4), (0, 127)), (128, 128, 128), (128, 128, 128)),
    ],
)
def test_transparent_pixels_lie_on_white(picture: Image.Image, first: Any, second: Any) -> None:
    shown = decoded(encoded(picture))
    assert near(shown.getpixel((0, 0)), first, 1)
    assert near(shown.getpixel((3, 3)), second, 1)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_become_light_whether_a_file_stores_them_inverted_or_not(kind: str) -> None:
    inks = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert near(decoded(encoded(inks, kind)).getpixel((3, 3)), RED)
    assert near(decoded(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), kind)).getpixel((3, 3)), WHITE)


def greys(values: list[int] | list[float], dtype: Any) -> Image.Image:
    return Image.fromarray(np.array([values], dtype=dtype))


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (encoded(greys([0, 257, 32768, 65535], np.uint16)), [0, 1, 128, 255]),
        (encoded(greys([0, 257, 32768, 65535], np.uint16), "TIFF"), [0, 1, 128, 255]),
        (encoded(greys([-70000, 0, 70000], np.int32), "TIFF"), [0, 128, 255]),
        (encoded(greys([1.0, 1.25, 1.5], np.float32), "TIFF"), [0, 128, 255]),
        (encoded(greys([0.0, np.nan, np.inf, 4.0], np.float32), "TIFF"), [0, 0, 0, 255]),
        (encoded(greys([7.0, 7.0], np.float32), "TIFF"), [0, 0]),
        (encoded(Image.new("1", (2, 1), 1)), [255, 255]),
    ],
)
def test_grey_of_any_depth_is_scaled_not_clipped(data: bytes, shown: list[int]) -> None:
    assert [decoded(data).getpixel((x, 0)) for x in range(len(shown))] == [(grey,) * 3 for grey in shown]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_of_several_frames_the_first_is_shown(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert near(decoded(data).getpixel((3, 3)), RED)


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(UserError, match=r"Picture 'it.png' of table is broken"):
        decoded(data)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_cut_off_file_of_any_format_is_refused_by_name(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(UserError, match=r"'it.png' of table is broken"):
        decoded(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", ["PPM", "ICO", "EPS"])
def test_other_formats_are_refused_with_those_that_are_read(kind: str) -> None:
    with pytest.raises(UserError, match=r"'it.png' of table .* a kind that is not read \(BMP, GIF, JPEG, PNG"):
        decoded(encoded(quarters(), kind))


@pytest.mark.parametrize("size", [(10_001, 10_000), (60_000, 60_000)])
def test_a_gigantic_picture_is_refused_before_its_pixels_are_read(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    width, height = (side.to_bytes(4, "big") for side in size)
    small = encoded(Image.new("L", (3, 3)))
    header = b"IHDR" + width + height + small[24:29]
    bomb = small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("pixels were read"))
    with pytest.raises(UserError, match=r"'it.png' of table has over 100,000,000 pixels"):
        decoded(bomb)


def test_shrinking_keeps_what_the_whole_picture_shows() -> None:
    whole = decoded(encoded(quarters()))
    assert decoded(encoded(quarters()), 512).tobytes() == whole.tobytes()
    assert decoded(encoded(quarters()), 128).tobytes() == whole.resize((16, 8)).tobytes()


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_picture_that_fails_in_an_assertion_of_its_reader_is_refused_by_name() -> None:
    of_a_palette = struct.pack(">IIBBBBB", 4, 4, 8, 3, 0, 0, 0)
    without_one = png((b"IHDR", of_a_palette), (b"IDAT", zlib.compress(b"\0\1\2\3\4" * 4)), (b"IEND", b""))
    with pytest.raises(UserError, match=r"it\.png' .* is broken"):
        decoded(without_one)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()])
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "a.png")
    make(tmp_path / "pictures.zip")
    with pytest.raises(UserError, match=r"a\.png"):
        decode_image(ImageRef(str(tmp_path), "a.png"))
    with pytest.raises(UserError, match=r"a\.png"):
        decode_image(ImageRef(str(tmp_path / "pictures.zip"), "a.png"))


def test_a_member_that_unpacks_to_more_than_a_picture_has_is_refused(tmp_path: Path) -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("a.png", b"x")
    content = bytearray(held.getvalue())
    for place in (content.index(b"PK\x03\x04") + 22, content.index(b"PK\x01\x02") + 24):
        content[place : place + 4] = b"\xfe\xff\xff\xff"
    (tmp_path / "pictures.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"'a\.png' cannot be read .* unpacks to 4,294,967,294 bytes"):
        decode_image(ImageRef(str(tmp_path / "pictures.zip"), "a.png"))
