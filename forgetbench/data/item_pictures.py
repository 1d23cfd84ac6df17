"""Find the pictures of an item: files in a folder or a ZIP, bytes in a table, or texts that encode a picture."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath

from forgetbench.core.files import replacing
from forgetbench.core.paths import is_relative
from forgetbench.core.records import ImageRef
from forgetbench.data.conversations import Row, is_conversation
from forgetbench.data.manifest import Manifest, downloads
from forgetbench.data.picture_texts import LONGEST_NAME, decode_picture_bytes, decode_picture_text
from forgetbench.data.tables import CellBytes, content_name

IN_MEMORY = 512 * 2**20
"""Bytes of pictures from tables that stay in memory per split; further pictures are read when they are needed."""
_ADDRESS = re.compile(r"(?!file:)[a-zA-Z][a-zA-Z0-9+.-]+://")


class ItemPictures:
    """The pictures of a split's items. A picture from a table is held once; `IN_MEMORY` limits memory."""

    def __init__(self, manifest: Manifest, split: str) -> None:
        """Prepare to read a split.

        Args:
            manifest: a manifest with a source.
            split: the split to read.
        """
        assert manifest.source is not None
        self._manifest = manifest
        folder = manifest.root / manifest.source.images
        self._folder = str(folder)
        self._folders = (folder, Path(os.path.realpath(folder)))
        columns = manifest.source.columns | manifest.split(split).columns
        self._fields = [name for name in ("image", "images") if name in columns] or ["image", "images"]
        self._references: dict[str, ImageRef] = {}
        self._n_bytes = 0

    def from_row(self, row: Row) -> tuple[ImageRef, ...]:
        """The pictures of a row, in the order of its field `image` or `images`.

        Raises:
            ValueError: a value is no picture, a file is outside the dataset's folder, or the two fields differ.
        """
        values = [_as_list(row[name]) for name in self._fields if row.get(name) is not None]
        if len(values) == 2 and values[0] != values[1] and all(values):
            raise ValueError("its fields `image` and `images` differ; say under `source.columns` which is `image`")
        return tuple(map(self.from_value, next(filter(None, values), [])))

    def may_show(self, row: Row) -> bool:
        """Whether a row has a value in a picture field, or has turns, which may hold pictures."""
        return is_conversation(row) or any(row.get(name) for name in self._fields)

    def from_value(self, value: object) -> ImageRef:
        """A picture given as the Hub's {bytes, path}, as bytes, as a file's name, in base64 or as a data URI.

        Raises:
            ValueError: the value is no picture, or the file is outside the dataset's folder.
        """
        fields: Row = value if isinstance(value, dict) else {"bytes" if isinstance(value, bytes) else "path": value}
        data: object = fields.get("bytes")
        name = fields.get("path")
        if isinstance(data, list):
            data = _from_numbers(data)
        elif isinstance(data, str):
            text, data = data, decode_picture_text(data)
            if data is None:
                raise ValueError(f"picture '{text[:40]}' is given as bytes, and is neither bytes nor base64")
        elif data is None and isinstance(name, str):
            data = decode_picture_text(name)
        if isinstance(data, bytes):
            return self._shared_reference(decode_picture_bytes(data))
        if not isinstance(name, str) or not name:
            raise ValueError(f"`image` must be a file's name or a picture's bytes, not {value!r}")
        if len(name) > LONGEST_NAME:
            raise ValueError(f"`image` is a text of {len(name)} characters, '{name[:40]}...', and no picture in base64")
        return ImageRef(self._folder, self._relative_name(name))

    def _relative_name(self, name: str) -> str:
        """The name relative to the dataset's folder."""
        if _ADDRESS.match(name):
            raise ValueError(f"picture '{name}' is an address; download it, and give the file's name")
        name = name.removeprefix("file://")
        path = PurePath(name)
        if is_relative(name):
            return name
        if ".." not in path.parts:
            for folder in self._folders:
                if path.is_relative_to(folder):
                    return path.relative_to(folder).as_posix()
        raise ValueError(
            f"picture '{name}' is outside the dataset's folder {self._folder}; name its folder in `source.images`"
        )

    def _shared_reference(self, data: bytes) -> ImageRef:
        # Named by content: the same picture in several rows is one cluster, and pictures of different splits differ.
        name = content_name(data)
        if name not in self._references:
            self._references[name] = self._make_reference(name, data)
        return self._references[name]

    def _make_reference(self, name: str, data: bytes) -> ImageRef:
        if self._n_bytes + len(data) > IN_MEMORY:
            if isinstance(data, CellBytes):
                return ImageRef(data.cell, name)
            if self._manifest.source and self._manifest.source.streaming:
                return self._store_streamed(name, data)
        self._n_bytes += len(data)
        return ImageRef(self._manifest.path, name, bytes(data))

    def _store_streamed(self, name: str, data: bytes) -> ImageRef:
        """Store a streamed picture as a file, which the next pass over the stream reuses."""
        path = downloads() / ".streamed" / self._manifest.name / name
        if not path.is_file():
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        return ImageRef(str(path.parent), name)


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _from_numbers(numbers: list[object]) -> bytes:
    """Bytes that JSON holds as a list of numbers."""
    if not all(isinstance(number, int) and 0 <= number < 256 for number in numbers):
        raise ValueError("the list `bytes` of its picture holds something else than numbers from 0 to 255")
    return bytes(number for number in numbers if isinstance(number, int))
