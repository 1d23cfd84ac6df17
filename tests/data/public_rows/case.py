"""A case: a few rows of a public set as it is published, and what they are read as."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

Row = dict[str, Any]

COLORS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def encoded(color: str) -> bytes:
    """A PNG of one colour."""
    held = io.BytesIO()
    Image.new("RGB", (4, 2), COLORS[color]).save(held, "PNG")
    return held.getvalue()


def stored(color: str) -> Row:
    """A picture as the Hub's tables hold it."""
    return {"bytes": encoded(color), "path": f"{color}.png"}


RED, BLUE = stored("red"), stored("blue")


@dataclass(frozen=True)
class Case:
    """Rows of one set and the first item of the split that is scored (or, where none is, trained on)."""

    rows: Mapping[str, Sequence[Row]]
    """On the Hub: split, or configuration/split -> rows. In files: the file's path below the set's root -> rows."""
    n: Mapping[str, int]
    """Our split -> items that its rows make."""
    prompt: str
    answer: str | tuple[str, ...]
    """Of a lettered or fixed option the answer; of an open one everything accepted."""
    clusters: tuple[str, ...] = ("image=red",)
    """A picture that a table holds is named by its colour here."""
    options: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ("red",)
    id: str = "0"
    class_name: str = ""
    types: Mapping[str, str] = field(default_factory=dict)
    """Column -> its Arrow type, where it is not what Python's value suggests."""
