"""Conversations about garments for the examples: what a script of your own has in place of them is its own data."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from forgetbench.core.paths import EMBEDDED
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.pictures import read_image
from forgetbench.data.sources import load_samples

MODEL = str(EMBEDDED / "tiny")
"""The folder of the small model that comes with forgetbench."""
TARGET = "fashion_naming"
MATRIX = ["fashion_naming", "digits_naming", "fashion_knowledge", "emoji_category"]
"""A dataset of each quadrant of the 2x2, seen from the target."""


def conversations(count: int) -> list[dict[str, Any]]:
    """Rows of `messages`, whose contents are parts, and `images`.

    Args:
        count: of rows.
    """
    samples = load_samples(Catalogue().load(TARGET), "train")
    return [
        {
            "messages": [_turn("user", {"type": "image"}, _text(one.prompt)), _turn("assistant", _text(one.answer))],
            "images": [Image.open(io.BytesIO(read_image(one.images[0]))).convert("RGB")],
        }
        for one in samples[:count]
    ]


def outputs(folder: str | Path) -> dict[str, str]:
    """Where a trainer and the callback write: `<folder>/saves` and `<folder>/outputs`."""
    return {"output_dir": str(Path(folder) / "saves" / "garments"), "outputs": str(Path(folder) / "outputs")}


def _turn(role: str, *parts: dict[str, str]) -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
