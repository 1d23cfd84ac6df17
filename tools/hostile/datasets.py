"""A small sound dataset, which the cases of several groups change in one place."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from typing import Any

from PIL import Image

from tools.hostile.case import Case, Ends, Place

Fields = dict[str, Any]
"""Of a manifest."""
Files = dict[str, str | bytes]

FOLDER = "data_manifests"
ITEM = {"question": "Which colour?", "answer": "red"}
CHOICE = {"question": "Which?", "options": ["cat", "dog", "owl"], "answer": "dog"}
SOUND: dict[str, Any] = {
    "source": {"root": ".."},
    "splits": {"train": {"files": ["items.jsonl"]}},
    "image_domains": ["text"],
    "text_tasks": ["questions"],
}
SHOWN = ("data", "show", "mine")
"""Reads a manifest and an item of each split."""
READ = ("data", "audit", "mine")
"""Reads every item and decodes every picture of a training split."""


def as_yaml(fields: dict[str, Any]) -> str:
    """A manifest; JSON is YAML, and writes what YAML's own writer refuses."""
    return json.dumps(fields)


def lines(*rows: object) -> str:
    """JSON lines."""
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def png(size: tuple[int, int] = (4, 2), mode: str = "RGB", kind: str = "PNG", **how: Any) -> bytes:
    """A picture's file."""
    held = io.BytesIO()
    Image.new(mode, size).save(held, kind, **how)
    return held.getvalue()


def write_set(place: Place, fields: Fields, files: Files | None = None) -> None:
    """Write the manifest `mine`, sound but for `fields` (None leaves one out), and files beside its folder."""
    given = {name: value for name, value in (SOUND | fields).items() if value is not None}
    place.write(f"{FOLDER}/mine.yaml", as_yaml(given))
    for name, content in ({"items.jsonl": lines(ITEM)} if files is None else files).items():
        place.write(name, content)


def set_case(
    name: str,
    fields: Fields,
    files: Files | Callable[[Place], object] | None = None,
    ends: Ends = Ends.refused,
    says: Iterable[str] = (),
    command: tuple[str, ...] = SHOWN,
) -> Case:
    """A case of a dataset that is sound but for what is given."""

    def make(place: Place) -> None:
        write_set(place, fields, {} if callable(files) else files)
        if callable(files):
            files(place)

    return Case(name, command, make, ends, tuple(says))
