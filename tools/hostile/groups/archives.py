"""Archives and compressed files: cut, encrypted, bombs, members that are none."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from tools.hostile.case import Case, Ends, Place
from tools.hostile.datasets import ITEM, READ, Files, lines, png, set_case

_ZIPPED = {"source": {"root": "..", "images": "pictures.zip"}, "image_domains": ["photos"]}
_ROW = lines({**ITEM, "image": "a.png"})


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, content in _GZIPS.items():
        fields = {"splits": {"train": {"files": ["items.jsonl.gz"]}}}
        yield set_case(f"gzip {what}", fields, {"items.jsonl.gz": content}, says=["items.jsonl.gz"])
    empty = {"splits": {"train": {"files": ["items.jsonl.gz"]}}}
    yield set_case("gzip of nothing", empty, {"items.jsonl.gz": b""}, says=["mine.yaml"])
    for what, content in _RIGHT_GZIPS.items():
        fields = {"splits": {"train": {"files": ["items.jsonl.gz"]}}}
        yield set_case(f"gzip {what}", fields, {"items.jsonl.gz": content}, Ends.works)
    for name in ("items.json.gz", "items.csv.gz", "items.jsonl.gz"):
        yield set_case(
            f"a bomb of 8 GiB as {name}", {"splits": {"train": {"files": [name]}}}, _bombed(name), says=[name]
        )
    for what, make in _ZIPS.items():
        files: Files = {"items.jsonl": _ROW, "pictures.zip": make()}
        yield set_case(f"zip {what}", _ZIPPED, files, says=["a.png"], command=READ)
    for what, make in _RIGHT_ZIPS.items():
        files = {"items.jsonl": _ROW, "pictures.zip": make()}
        yield set_case(f"zip {what}", _ZIPPED, files, Ends.works, command=READ)
    for what, prepare in _PLACES.items():
        yield set_case(f"zip is {what}", _ZIPPED, prepare, says=["pictures.zip"], command=READ)
    yield set_case("zip is a folder of that name", _ZIPPED, _zip_folder, Ends.works, command=READ)
    for what, (name, content) in _OTHERS.items():
        fields = {"splits": {"train": {"files": [name]}}}
        yield set_case(f"rows in {what}", fields, {name: content}, says=[name])
    for what, (name, content) in _OTHER_PICTURES.items():
        fields = {"source": {"root": "..", "images": name}, "image_domains": ["photos"]}
        yield set_case(f"pictures in {what}", fields, {"items.jsonl": _ROW, name: content}, says=[name], command=READ)


_SOUND = gzip.compress(lines(ITEM).encode())
_GZIPS: dict[str, bytes] = {
    "of its start alone": b"\x1f\x8b\x08",
    "cut in half": gzip.compress(lines(*[ITEM] * 500).encode())[:40],
    "without its end": _SOUND[:-8],
    "with a wrong checksum": _SOUND[:-8] + b"\0\0\0\0" + _SOUND[-4:],
    "with a wrong length": _SOUND[:-4] + b"\0\0\0\0",
    "of garbage": _SOUND[:10] + b"\xff" * 50,
    "that is not compressed": lines(ITEM).encode(),
    "of a ZIP": b"PK\x03\x04" + b"\0" * 60,
    "of bzip2": bz2.compress(lines(ITEM).encode()),
    "of xz": lzma.compress(lines(ITEM).encode()),
    "of gzip": gzip.compress(_SOUND),
    "with bytes behind its end": _SOUND + b"words",
    "of an unknown method": b"\x1f\x8b\x07" + _SOUND[3:],
    "of a line of 200 MiB": gzip.compress(b'{"question": "' + b"x" * (200 * 2**20), 1),
}
_RIGHT_GZIPS: dict[str, bytes] = {
    "of several members": _SOUND + gzip.compress(lines({**ITEM, "id": "b"}).encode()),
    "with zeros behind its end": _SOUND + b"\0" * 512,
    "with a name and a comment": b"\x1f\x8b\x08\x18" + _SOUND[4:10] + b"../../x\0comment\0" + _SOUND[10:],
    "of lines that repeat": gzip.compress(lines(*[{**ITEM, "id": k} for k in range(20_000)]).encode()),
}


def _bombed(name: str) -> Callable[[Place], object]:
    """Members of zeros, one after the other: 8 GiB of blanks in 8 MiB."""

    def make(place: Place) -> None:
        start = {"json": b"[", "csv": b"question,answer\n", "jsonl": b""}[name.split(".")[1]]
        blanks = gzip.compress(b" " * (64 * 2**20), 9)
        place.write(name, gzip.compress(start) + blanks * 128)

    return make


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return held.getvalue()


_PICTURE = {"a.png": png()}


def _patched(change: Callable[[bytearray, int, int], None]) -> Callable[[], bytes]:
    """A ZIP of one picture, with its member's two headers changed."""

    def make() -> bytes:
        content = bytearray(_zip(_PICTURE, zipfile.ZIP_STORED))
        change(content, content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02"))
        return bytes(content)

    return make


def _encrypted(content: bytearray, local: int, central: int) -> None:
    content[local + 6] |= 1
    content[central + 8] |= 1


def _unknown_method(content: bytearray, local: int, central: int) -> None:
    content[local + 8] = content[central + 10] = 77


def _declared(size: int) -> Callable[[bytearray, int, int], None]:
    def change(content: bytearray, local: int, central: int) -> None:
        content[local + 22 : local + 26] = content[central + 24 : central + 28] = size.to_bytes(4, "little")

    return change


def _moved(content: bytearray, local: int, central: int) -> None:
    content[central + 42 : central + 46] = b"\xff\xff\xff\x7f"


def _other_name(content: bytearray, local: int, central: int) -> None:
    content[local + 30 : local + 35] = b"b.png"


def _linked_member() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        entry = zipfile.ZipInfo("a.png")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    return held.getvalue()


_BOMB: list[bytes] = []


def _bomb() -> bytes:
    """A member of almost 4 GiB in 4 MiB, made once."""
    if not _BOMB:
        chunk = zlib.compressobj(9, zlib.DEFLATED, -15)
        compressed = b"".join(chunk.compress(b"\0" * 2**24) for _ in range(16)) + chunk.flush()
        content = bytearray(_zip({"a.png": b"x"}))
        local, central = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")
        head, tail = content[: local + 30 + 5], content[central:]
        for start, sizes in ((head, local + 18), (tail, 20)):
            start[sizes : sizes + 8] = len(compressed).to_bytes(4, "little") + (16 * 2**24).to_bytes(4, "little")
        end = tail.index(b"PK\x05\x06")
        tail[end + 16 : end + 20] = (len(head) + len(compressed)).to_bytes(4, "little")
        _BOMB.append(bytes(head) + compressed + bytes(tail))
    return _BOMB[0]


_ZIPS: dict[str, Callable[[], bytes]] = {
    "of nothing": lambda: b"",
    "of its start alone": lambda: b"PK\x03\x04",
    "of its end alone": lambda: b"PK\x05\x06" + b"\0" * 18,
    "cut in half": lambda: (content := _zip(_PICTURE))[: len(content) // 2],
    "without its directory": lambda: (content := _zip(_PICTURE))[: content.index(b"PK\x01\x02")],
    "of garbage": lambda: b"\xff" * 500,
    "that is gzip": lambda: gzip.compress(png()),
    "without the picture": lambda: _zip({"b.png": png()}),
    "with the picture in a folder": lambda: _zip({"inside/a.png": png()}),
    "with a password": _patched(_encrypted),
    "of an unknown method": _patched(_unknown_method),
    "that says a member of 4 GiB": _patched(_declared(2**32 - 2)),
    "that says a member of no bytes": _patched(_declared(0)),
    "whose member is beyond its end": _patched(_moved),
    "whose two names differ": _patched(_other_name),
    "with a folder in the picture's place": lambda: _zip({"a.png/": b""}),
    "with a link in the picture's place": _linked_member,
    "with a wrong checksum": lambda: _zip(_PICTURE, zipfile.ZIP_STORED).replace(b"IDAT", b"IDAX", 1),
    "with two that differ in case": lambda: _zip({"A.png": png(), "a.PNG": png((2, 2))}),
    "with a member of 256 MiB of zeros": _bomb,
}
_RIGHT_ZIPS: dict[str, Callable[[], bytes]] = {
    "of bzip2": lambda: _zip(_PICTURE, zipfile.ZIP_BZIP2),
    "of lzma": lambda: _zip(_PICTURE, zipfile.ZIP_LZMA),
    "with bytes in front": lambda: b"#!/bin/sh\n" + _zip(_PICTURE),
    "with members above it": lambda: _zip({"../../pwned": b"x", "/etc/pwned": b"x", **_PICTURE}),
    "with ten thousand members": lambda: _zip({**{f"{k}.txt": b"" for k in range(10_000)}, **_PICTURE}),
    "with names of 5000 letters": lambda: _zip({"n" * 5000: b"", **_PICTURE}),
    "with names of control characters": lambda: _zip({"\x1b[31m": b"", **_PICTURE}),
    "with the name in another case": lambda: _zip({"A.PNG": png()}),
}


def _rows(place: Place) -> None:
    place.write("items.jsonl", _ROW)


def _zip_folder(place: Place) -> None:
    _rows(place)
    place.write("pictures.zip/a.png", png())


def _zip_fifo(place: Place) -> None:
    _rows(place)
    os.mkfifo(place.folder / "pictures.zip")


def _zip_linked(target: str) -> Any:
    def make(place: Place) -> None:
        _rows(place)
        (place.folder / "pictures.zip").symlink_to(target)

    return make


_PLACES: dict[str, Any] = {
    "absent": _rows,
    "a FIFO": _zip_fifo,
    "a link to itself": _zip_linked("pictures.zip"),
    "a link to an endless device": _zip_linked("/dev/zero"),
}


def _tar(kind: str = "") -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode=f"w:{kind}") as archive:
        entry = tarfile.TarInfo("a.png")
        entry.size = len(png())
        archive.addfile(entry, io.BytesIO(png()))
    return held.getvalue()


_OTHERS: dict[str, tuple[str, bytes]] = {
    "a tar": ("items.tar", _tar()),
    "a tar of gzip": ("items.tar.gz", _tar("gz")),
    "a ZIP": ("items.zip", _zip({"items.jsonl": lines(ITEM).encode()})),
    "bzip2": ("items.jsonl.bz2", bz2.compress(lines(ITEM).encode())),
    "xz": ("items.jsonl.xz", lzma.compress(lines(ITEM).encode())),
    "a spreadsheet": ("items.xlsx", _zip({"xl/workbook.xml": b"<x/>"})),
    "a pickle": ("items.pkl", b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x04eval\x94."),
    "YAML": ("items.yaml", json.dumps([ITEM]).encode()),
}
_OTHER_PICTURES: dict[str, tuple[str, bytes]] = {
    "a tar": ("pictures.tar", _tar()),
    "a tar of gzip": ("pictures.tar.gz", _tar("gz")),
    "a picture": ("a.png", png()),
    "a pickle under the name of a ZIP": ("p.zip", b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x04eval\x94."),
}
