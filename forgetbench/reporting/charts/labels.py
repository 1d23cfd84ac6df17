"""Names above a row of points: slanted, apart from each other, each with a line to its point."""

from __future__ import annotations

import math
from collections.abc import Sequence

ANGLE = -45
"""Degrees; names go up to the right."""
APART = 19.0
"""Pixels between the starts of two names, which keeps slanted lines of text from touching."""
_PER_LETTER = 5.6
_UP = math.sin(math.radians(-ANGLE))


def label_height(names: Sequence[str]) -> float:
    """Pixels that the longest slanted name needs above (and to the right of) its start."""
    return 10 + _UP * _PER_LETTER * max((len(name) for name in names), default=0)


def space_apart(places: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Move sorted places as little as keeps them `apart`, in order and between two ends.

    Groups of places that would be too close are centred on the mean of where they want to be. Where they do not fit
    between the ends, they stand closer.
    """
    if len(places) > 1:
        apart = min(apart, (high - low) / (len(places) - 1))
    groups: list[tuple[float, int]] = []  # the mean of wanted starts, and how many
    for index, place in enumerate(places):
        wanted, count = place - index * apart, 1
        while groups and groups[-1][0] >= wanted:
            mean, members = groups.pop()
            wanted, count = (mean * members + wanted * count) / (members + count), members + count
        groups.append((wanted, count))
    limit = high - (len(places) - 1) * apart
    starts = [min(max(mean, low), max(limit, low)) for mean, count in groups for _ in range(count)]
    return [start + index * apart for index, start in enumerate(starts)]


def tick_spacing(length: float, max_ticks: int = 8) -> float:
    """A round distance between ticks, of which at most `max_ticks` fit into a length in percent."""
    return next((unit for unit in (0.5, 1.0, 2.0, 5.0, 10.0) if length / unit <= max_ticks), 20.0)
