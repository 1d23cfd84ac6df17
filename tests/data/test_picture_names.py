"""A picture is found by the name that an item gives it, and read from texts, however a program wrote them."""

from __future__ import annotations

import base64
import io
import json
import unicodedata
import zipfile
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from PIL import Image, PngImagePlugin

from forgetbench.core.errors import UserError
from forgetbench.core.records import ImageRef
from forgetbench.data.manifest_file import load_manifest
from forgetbench.data.pictures import count_pixels, decode_image, read_image
from forgetbench.data.sources import load_samples

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Übung é.png") for form in ("NFC", "NFD"))


def picture(size: tuple[int, int] = (4, 2), kind: str = "PNG", **options: Any) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", size, "red").save(held, kind, **options)
    return held.getvalue()


# Names.


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        (COMPOSED, DECOMPOSED),
        (DECOMPOSED, COMPOSED),
        (f"{DECOMPOSED}/in.png", f"{COMPOSED}/in.png"),
        ("sub/tile.png", "sub\\tile.png"),
        ("sub/tile.png", ".\\sub\\tile.png"),
        ("a\\b.png", "a\\b.png"),
        ("Photo.JPG", "photo.jpg"),
    ],
)
@pytest.mark.parametrize("archive", [None, "pictures.ZIP"])
def test_a_name_is_found_as_other_systems_write_it(
    tmp_path: Path, stored: str, asked: str, archive: str | None
) -> None:
    if archive:
        with zipfile.ZipFile(tmp_path / archive, "w") as made:
            made.writestr(stored, picture())
    else:
        path = tmp_path / stored
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture())
    assert read_image(ImageRef(str(tmp_path / (archive or "")), asked)) == picture()


def test_the_name_as_it_is_goes_before_every_other(tmp_path: Path) -> None:
    for name, size in {COMPOSED: (1, 1), DECOMPOSED: (2, 1), "A.png": (3, 1), "a.png": (4, 1)}.items():
        (tmp_path / name).write_bytes(picture(size))
        assert decode_image(ImageRef(str(tmp_path), name)).width == size[0]
    with pytest.raises(UserError, match=r"Picture 'x.PNG' .*there is no such file"):
        read_image(ImageRef(str(tmp_path), "x.PNG"))


def test_a_name_that_fits_two_files_in_another_case_is_refused_with_both(tmp_path: Path) -> None:
    for name in ("Cat.png", "cat.PNG"):
        (tmp_path / name).write_bytes(picture())
    with pytest.raises(UserError, match=r"it could be any of 'Cat.png', 'cat.PNG'"):
        read_image(ImageRef(str(tmp_path), "cat.png"))


def test_a_name_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "tile_0012.png").write_bytes(picture())
    with pytest.raises(UserError, match=r"'tile_0013.png' cannot be read .* the nearest name is 'tile_0012.png'"):
        read_image(ImageRef(str(tmp_path), "tile_0013.png"))


def test_an_archive_whose_names_are_utf_8_without_saying_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as made:
        made.writestr("Ubung.png", picture())
    stored = "Übg.png".encode()  # as long as the name that it replaces
    assert len(stored) == len(b"Ubg.png") + 1
    data = (tmp_path / "mac.zip").read_bytes().replace(b"Ubung.png", b"\xc3\x9cbng.png")
    (tmp_path / "mac.zip").write_bytes(data)
    assert read_image(ImageRef(str(tmp_path / "mac.zip"), "Übng.png")) == picture()


def test_a_folder_may_be_called_like_an_archive(tmp_path: Path) -> None:
    (tmp_path / "set.zip").mkdir()
    (tmp_path / "set.zip" / "a.png").write_bytes(picture())
    assert read_image(ImageRef(str(tmp_path / "set.zip"), "a.png")) == picture()


@pytest.mark.parametrize("name", ["..\\red.png", "in\\..\\..\\red.png"])
def test_no_spelling_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "red.png").write_bytes(picture())
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="outside the dataset's folder"):
        shown(tmp_path, name, images="in")
    with pytest.raises(UserError, match="cannot be read"):
        read_image(ImageRef(str(tmp_path / "in"), name))


# Texts.


def shown(folder: Path, image: object, images: str = ".") -> Image.Image:
    """The picture of an item as it is decoded."""
    row = {"image": image, "question": "?", "answer": "red"}
    (folder / "items.jsonl").write_text(json.dumps(row))
    given = {"source": {"images": images}, "splits": {"train": {"files": ["items.jsonl"]}}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(given | {"image_domains": ["dots"], "text_tasks": ["colour"]}))
    (sample,) = load_samples(load_manifest(folder / "mine.yaml"), "train")
    return decode_image(sample.images[0])


SIZES = [(k, 3) for k in range(1, 40)]
"""So that base64 ends in no, one and two signs of padding, and holds each of its 64 characters."""


def broken_lines(text: str) -> str:
    return "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76)) + "\r\n"


WRITTEN = {
    "plain": lambda data: base64.b64encode(data).decode(),
    "url-safe": lambda data: base64.urlsafe_b64encode(data).decode(),
    "lines": lambda data: broken_lines(base64.b64encode(data).decode()),
    "unpadded": lambda data: base64.b64encode(data).decode().rstrip("="),
    "python": lambda data: str(base64.b64encode(data)),
    "prefixed": lambda data: "base64," + base64.b64encode(data).decode(),
    "uri": lambda data: "data:image/png;base64," + base64.b64encode(data).decode(),
    "uri of no kind": lambda data: "data:;base64," + base64.b64encode(data).decode(),
    "uri with a parameter": lambda data: "data:image/png;charset=utf-8;base64," + base64.b64encode(data).decode(),
    "uri in capitals": lambda data: "DATA:IMAGE/PNG;BASE64," + base64.b64encode(data).decode(),
    "escaped uri": lambda data: "data:image/png;base64," + quote(base64.b64encode(data).decode(), safe=""),
    "uri without base64": lambda data: "data:image/png," + quote(data),
    "bytes as text": lambda data: {"bytes": base64.b64encode(data).decode(), "path": "x.png"},
    "bytes as numbers": lambda data: {"bytes": list(data), "path": None},
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("way", WRITTEN)
def test_a_text_that_holds_a_picture_is_read(tmp_path: Path, way: str, kind: str) -> None:
    for size in SIZES[:: 1 if kind == "PNG" else 13]:
        assert shown(tmp_path, WRITTEN[way](picture(size, kind))).size == size


def test_a_name_that_looks_like_base64_is_a_name(tmp_path: Path) -> None:
    for name in ("Qk12", "R0lGOD", "UklGRabcdefgh"):
        (tmp_path / name).write_bytes(picture())
        assert shown(tmp_path, name).size == (4, 2)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("iVBORw0KGgo" + "!" * 300, "no valid base64"),
        ("QUJD" * 400, "a text of 1600 characters"),
        ("data:image/png;base64", "a data URI without a comma"),
        ("data:text/plain,hello", "a data URI that is not in base64"),
        ({"bytes": "x.png"}, "neither bytes nor base64"),
        ({"bytes": [1, 999]}, "numbers from 0 to 255"),
    ],
)
def test_a_text_that_holds_none_is_refused_by_its_item(tmp_path: Path, image: object, message: str) -> None:
    with pytest.raises(UserError, match=rf"item 0 of split 'train': .*{message}"):
        shown(tmp_path, image)


# PNGs with long notes.


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


LONG = b"a" * (PngImagePlugin.MAX_TEXT_CHUNK + 1)
NOTES = {
    "compressed note": chunk(b"zTXt", b"note\0\0" + zlib.compress(LONG)),
    "profile": chunk(b"iCCP", b"icc\0\0" + zlib.compress(LONG)),
    "international note": chunk(b"iTXt", b"note\0\1\0\0\0" + zlib.compress(LONG)),
    "many notes": chunk(b"tEXt", b"note\0" + b"a" * 2**20) * 65,
}


@pytest.mark.parametrize("name", NOTES)
@pytest.mark.parametrize("at_end", [False, True])
def test_a_png_with_long_notes_is_shown(name: str, at_end: bool) -> None:
    plain = picture((5, 3))
    end = plain.index(b"IEND") - 4 if at_end else 33
    image = ImageRef("table", "it.png", plain[:end] + NOTES[name] + plain[end:])
    assert decode_image(image).size == (5, 3)
    assert count_pixels(image) == 15


def test_a_broken_png_with_long_notes_is_broken() -> None:
    plain = picture((50, 30))
    cut = plain[:33] + NOTES["profile"] + plain[33:-30]
    with pytest.raises(UserError, match=r"'it.png' of table is broken"):
        decode_image(ImageRef("table", "it.png", cut))
