"""What groups about models share: small copies of the prepared model, and ways to damage their files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from tools.hostile.case import Place

SHORT = ("recipe.steps=1", "recipe.batch_size=2", "threads=1")
LOCAL = ("model=local", "model.path=m")
TRAIN = ("finetune", *LOCAL, "name=x", *SHORT)
SHOW = ("models", "show", *LOCAL)
PLAN = ("models", "plan", *LOCAL)

Make = Callable[[Place], object]


def with_file(name: str, content: str | bytes) -> Make:
    """The prepared model as `m`, one file of it replaced or added."""

    def make(place: Place) -> None:
        place.copy("model", "m")
        place.write(f"m/{name}", content)

    return make


def with_edit(name: str, change: Callable[[Any], object], what: str = "model", to: str = "m") -> Make:
    """Something prepared, the values of one of its JSON files changed in place (or replaced by what is returned)."""

    def make(place: Place) -> None:
        path = place.copy(what, to) / name
        content = json.loads(path.read_text())
        changed = change(content)
        path.write_text(json.dumps(content if changed is None else changed))

    return make


def setting(key: str, value: object) -> Callable[[Any], None]:
    """A change of one value, by its dotted key; `...` takes it out."""

    def change(content: Any) -> None:
        *parents, last = key.split(".")
        for parent in parents:
            content = content[parent]
        if value is ...:
            del content[last]
        else:
            content[last] = value

    return change


def deep(levels: int = 10_000, opening: str = "[", closing: str = "]") -> str:
    """JSON of many levels."""
    return opening * levels + closing * levels


def safetensors(header: object, data: bytes = b"") -> bytes:
    """A file of tensors with any header: text and bytes as they are, anything else as JSON."""
    if isinstance(header, str):
        header = header.encode()
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a file of tensors."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]
