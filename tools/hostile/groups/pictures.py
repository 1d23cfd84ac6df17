"""Pictures: truncated, of another kind than their name says, gigantic, of every mode, with broken notes."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from tools.hostile.case import Case, Ends, Place
from tools.hostile.datasets import ITEM, READ, lines, png, set_case

_PICTURES = {"image_domains": ["photos"]}


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, content in _BROKEN.items():
        yield _case(what, content)
    for what, content in _RIGHT.items():
        yield _case(what, content, Ends.works)
    for what, content in _EITHER.items():
        yield _case(what, content, Ends.either)
    for what, image in _INSIDE.items():
        files = {"items.jsonl": lines({**ITEM, "image": image})}
        yield set_case(f"in a row: {what}", _PICTURES, files, command=READ)
    for what, image in _RIGHT_INSIDE.items():
        files = {"items.jsonl": lines({**ITEM, "image": image})}
        yield set_case(f"in a row: {what}", _PICTURES, files, Ends.works, command=READ)
    for what, make in _PLACES.items():
        yield set_case(f"the file is {what}", _PICTURES, make, says=["a.png"], command=READ)
    for what, name in _NAMES.items():
        files = {"items.jsonl": lines({**ITEM, "image": name})}
        yield set_case(f"the name {what}", _PICTURES, files, command=READ)


def _case(what: str, content: bytes, ends: Ends = Ends.refused) -> Case:
    files = {"items.jsonl": lines({**ITEM, "image": "a.png"}), "a.png": content}
    return set_case(what, _PICTURES, files, ends, ["a.png"] if ends is Ends.refused else [], READ)


def _saved(picture: Image.Image, kind: str, **how: Any) -> bytes:
    held = io.BytesIO()
    picture.save(held, kind, **how)
    return held.getvalue()


def _of(kind: str, mode: str = "RGB", size: tuple[int, int] = (8, 6), **how: Any) -> bytes:
    return _saved(Image.new(mode, size), kind, **how)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int = 8, color: int = 2, data: bytes = b"", *more: bytes) -> bytes:
    """A PNG that says what it likes of itself."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + b"".join(more) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    )


def _changed(content: bytes, place: int, change: bytes) -> bytes:
    return content[:place] + change + content[place + len(change) :]


def _animated(kind: str, frames: int) -> bytes:
    pictures = [Image.new("RGB", (4, 4), (k % 256, 0, 0)) for k in range(frames)]
    return _saved(pictures[0], kind, save_all=True, append_images=pictures[1:])


def _bmp(width: int, height: int) -> bytes:
    return _changed(_of("BMP"), 18, struct.pack("<ii", width, height))


def _gif(width: int, height: int) -> bytes:
    return _changed(_of("GIF"), 6, struct.pack("<HH", width, height))


_BOMB = zlib.compress(b"\0" * (64 * 2**20), 9)
_TEXT_BOMB = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * (64 * 2**20), 9))
_JPEG = _of("JPEG", size=(64, 64))
_BROKEN: dict[str, bytes] = {
    "empty": b"",
    "one byte": b"\x89",
    "a signature alone": b"\x89PNG\r\n\x1a\n",
    "zeros": b"\0" * 1000,
    "random": bytes((k * 7919 + 13) % 251 for k in range(4000)),
    "text": b"not a picture",
    "html": b"<!DOCTYPE html><html>403</html>",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "SVG that laughs": b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>',
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run\n",
    "PDF": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n",
    "an icon": _of("ICO", size=(16, 16)),
    "PPM": _of("PPM"),
    "TGA": _of("TGA"),
    "PCX": _of("PCX"),
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "a ZIP": b"PK\x03\x04" + b"\0" * 100,
    "a pickle": b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x04eval\x94.",
    "a PNG of no pixels": _png(0, 0),
    "a PNG of no width": _png(0, 5),
    "a PNG of 4 billion pixels": _png(65_535, 65_535),
    "a PNG of 2^62 pixels": _png(2**31 - 1, 2**31 - 1),
    "a PNG wider than an integer": _png(2**32 - 1, 1),
    "a PNG of 101 million pixels that are there": _png(10_100, 10_000, 8, 0, _BOMB),
    "a PNG of one row of 2 billion pixels": _png(2**31 - 1, 1),
    "a PNG of unknown depth": _png(4, 4, 7),
    "a PNG of unknown colour": _png(4, 4, 8, 9),
    "a PNG without its data": _png(4, 4),
    "a PNG of data that is not compressed": _png(4, 4, 8, 2, b"words"),
    "a PNG with an unknown row filter": _png(2, 2, 8, 0, zlib.compress(b"\x09\0\0\x09\0\0")),
    "a PNG without a palette": _png(4, 4, 8, 3, zlib.compress(b"\0\1\2\3\4" * 4)),
    "a PNG without a header": b"\x89PNG\r\n\x1a\n" + _chunk(b"IDAT", b"") + _chunk(b"IEND", b""),
    "a PNG with a chunk of 4 GiB": png()[:33] + b"\xff\xff\xff\xffIDAT" + b"x" * 50,
    "a PNG cut in its header": png()[:20],
    "a PNG cut in its data": png((64, 64))[:60],
    "a PNG with a wrong checksum": _changed(png(), 30, b"\xff\xff"),
    "a JPEG cut in half": _JPEG[: len(_JPEG) // 2],
    "a JPEG cut in its tables": _JPEG[:40],
    "a JPEG of its start alone": b"\xff\xd8\xff",
    "a JPEG of 65535 squared": _changed(_JPEG, _JPEG.index(b"\xff\xc0") + 5, b"\xff\xff\xff\xff"),
    "a JPEG of no pixels": _changed(_JPEG, _JPEG.index(b"\xff\xc0") + 5, b"\0\0\0\0"),
    "a JPEG of 200 colours": _changed(_JPEG, _JPEG.index(b"\xff\xc0") + 9, b"\xc8"),
    "a GIF of its start alone": b"GIF89a",
    "a GIF of 65535 squared": _gif(65_535, 65_535),
    "a BMP of 2 billion squared": _bmp(2**31 - 1, 2**31 - 1),
    "a BMP cut in half": _of("BMP", size=(64, 64))[:200],
    "a BMP of no width": _bmp(0, 4),
    "a WebP of its start alone": b"RIFF\x10\0\0\0WEBPVP8 ",
    "a WebP cut in half": (content := _of("WEBP", size=(64, 64)))[: len(content) // 2],
    "a TIFF whose directory is beyond": b"II*\0\xff\xff\xff\x7f",
    "a TIFF whose directory is itself": b"II*\0\x08\0\0\0\x01\0\0\x01\x03\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
    "a TIFF cut in half": _of("TIFF", size=(64, 64))[:100],
    "a TIFF of floats that are NaN": _saved(Image.new("F", (2, 2), float("nan")), "TIFF"),
}
_NOISY = Image.effect_noise((32, 32), 50)
_RIGHT: dict[str, bytes] = {
    "a JPEG under the name of a PNG": _JPEG,
    "a GIF under the name of a PNG": _of("GIF"),
    "a WebP under the name of a PNG": _of("WEBP"),
    "CMYK": _of("JPEG", "CMYK"),
    "grey": _of("PNG", "L"),
    "one bit": _of("PNG", "1"),
    "a palette": _of("PNG", "P"),
    "a palette with transparency": _of("PNG", "P", transparency=0),
    "RGBA": _of("PNG", "RGBA"),
    "grey and alpha": _of("PNG", "LA"),
    "16-bit grey": _of("PNG", "I;16"),
    "16-bit colour": _png(2, 2, 16, 2, zlib.compress((b"\0" + b"\1\2" * 6) * 2)),
    "floats": _saved(Image.new("F", (4, 4), 0.5), "TIFF"),
    "floats that are infinite in part": _saved(Image.fromarray(np.array([[0.5, float("inf")]], "f")), "TIFF"),
    "LAB": _of("TIFF", "LAB"),
    "YCbCr": _of("JPEG", "YCbCr"),
    "an animated GIF of 300 frames": _animated("GIF", 300),
    "an animated PNG": _animated("PNG", 3),
    "an animated WebP": _animated("WEBP", 3),
    "a TIFF of pages": _animated("TIFF", 3),
    "an interlaced JPEG": _saved(_NOISY.convert("RGB"), "JPEG", progressive=True),
    "one pixel": png((1, 1)),
    "one pixel high": png((5000, 1)),
    "50 million pixels": png((10_000, 5_000), "1"),
    "a PNG whose note is a bomb": _png(2, 2, 8, 0, zlib.compress(b"\0\0\0" * 2), _TEXT_BOMB),
    "a PNG with bytes behind its end": png() + b"trailing" * 100,
    "a PNG with unknown chunks": _png(2, 2, 8, 0, zlib.compress(b"\0\0\0" * 2), _chunk(b"prVt", b"x" * 1000)),
    "a JPEG with broken notes of the camera": _JPEG[:2] + b"\xff\xe1\x00\x20Exif\0\0" + b"\xff" * 24 + _JPEG[2:],
    "a JPEG with a broken colour profile": _JPEG[:2] + b"\xff\xe2\x00\x20ICC_PROFILE\0\x01\x01" + b"x" * 16 + _JPEG[2:],
    "a PNG with a gamma of zero": _png(2, 2, 8, 0, zlib.compress(b"\0\0\0" * 2), _chunk(b"gAMA", b"\0\0\0\0")),
}
_EITHER: dict[str, bytes] = {
    "a PNG whose data are more than its pixels": _png(4, 4, 8, 0, _BOMB),
    "a GIF without frames": b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff;",
    "a BMP of negative width": _bmp(-8, 6),
    "a BMP that is upside down": _bmp(8, -6),
    "a PNG of two headers": _png(2, 2, 8, 0, zlib.compress(b"\0\0\0" * 2), _chunk(b"IHDR", b"\0" * 13)),
    "a JPEG with garbage inside": _changed(_JPEG, len(_JPEG) - 40, bytes(range(30))),
}


def _uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


_INSIDE: dict[str, object] = {
    "base64 of a cut picture": base64.b64encode(_JPEG[:300]).decode(),
    "base64 of words": _uri(b"words"),
    "base64 of a bomb": _uri(_png(65_535, 65_535)),
    "base64 of nothing": _uri(b""),
    "base64 that is broken": "data:image/png;base64,@@@@",
    "bytes as a list of a cut picture": {"bytes": list(_JPEG[:100])},
    "bytes as an empty list": {"bytes": []},
    "a URI of SVG": _uri(b"<svg/>", "image/svg+xml"),
    "Python's bytes cut short": "b'\\x89PNG",
    "a list of a picture and null": [_uri(png()), None],
}
_RIGHT_INSIDE: dict[str, object] = {
    "a data URI": _uri(png()),
    "a data URI of a wrong type": _uri(_JPEG, "text/html"),
    "base64": base64.b64encode(_JPEG).decode(),
    "base64 of the other alphabet": base64.urlsafe_b64encode(_JPEG).decode(),
    "base64 with line breaks": base64.encodebytes(_JPEG).decode(),
    "bytes as a list of numbers": {"bytes": list(png()), "path": None},
    "bytes as base64": {"bytes": base64.b64encode(png()).decode()},
    "a list of one": [_uri(png())],
}


def _row(place: Place) -> None:
    place.write("items.jsonl", lines({**ITEM, "image": "a.png"}))


def _folder(place: Place) -> None:
    _row(place)
    (place.folder / "a.png").mkdir()


def _fifo(place: Place) -> None:
    _row(place)
    os.mkfifo(place.folder / "a.png")


def _linked(target: str) -> Any:
    def make(place: Place) -> None:
        _row(place)
        (place.folder / "a.png").symlink_to(target)

    return make


def _sparse(place: Place) -> None:
    _row(place)
    with place.write("a.png", png()).open("r+b") as file:
        file.truncate(100 * 2**30)


_PLACES = {
    "absent": _row,
    "a folder": _folder,
    "a FIFO": _fifo,
    "a link to itself": _linked("a.png"),
    "a link to nothing": _linked("gone.png"),
    "a link to an endless device": _linked("/dev/zero"),
    "a link to the null device": _linked("/dev/null"),
    "of 100 GiB with holes": _sparse,
}
_NAMES = {
    "holds NUL": "a\0.png",
    "holds half a character": "\ud800.png",
    "is of 300 letters": "n" * 300,
    "is of 1000 folders": "a/" * 500 + "x.png",
    "is a dot": ".",
    "is two dots": "..",
    "is a folder with a slash": "sub/",
    "is of blanks": "   ",
    "is an escape sequence": "\x1b[31m.png",
    "is a network's": "\\\\server\\share\\a.png",
    "is of a drive": "C:\\a.png",
    "is of proc": "/proc/self/environ",
    "is a file address": "file:///etc/passwd",
}
