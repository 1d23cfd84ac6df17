"""Boxes of referring expressions: CoIN's grounding task (RefCOCO, RefCOCO+, RefCOCOg)."""

from __future__ import annotations

import math
from collections.abc import Iterable

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as fractions of the padded square picture."""


def box_match(text: str, references: Iterable[str]) -> bool:
    """Whether the box that `text` gives overlaps any reference with an IoU above 0.5 (CoIN's eval_grounding.py).

    A box is four numbers between commas, with or without brackets, and nothing else: "[0.1, 0.25, 0.6, 0.75]". The
    public script also cuts off the first and the last character of these numbers, and with it the last digit of the
    bottom edge; here they are read whole.
    """
    box = read_box(text)
    return box is not None and any(
        right is not None and overlap(box, right) > 0.5 for right in map(read_box, references)
    )


def read_box(text: str) -> Box | None:
    """The box in a text; None if the text is anything else."""
    try:
        left, top, right, bottom = map(float, text.strip().removesuffix(".").strip(" []()").split(","))
    except ValueError:
        return None
    return (left, top, right, bottom) if all(map(math.isfinite, (left, top, right, bottom))) else None


def overlap(first: Box, second: Box) -> float:
    """Intersection over union (IoU), from 0 to 1; 0 if a box has no area, for example with swapped corners."""
    shared = _area(
        (max(first[0], second[0]), max(first[1], second[1]), min(first[2], second[2]), min(first[3], second[3]))
    )
    return shared / (_area(first) + _area(second) - shared) if shared else 0.0


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
