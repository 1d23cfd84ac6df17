"""Which rows of a split are read: all, or a few that are drawn by their places alone."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator

from forgetbench.core.errors import UserError
from forgetbench.data.layouts import Row, rows
from forgetbench.data.manifest import Manifest


def chosen_rows(manifest: Manifest, split: str, limit: int | None) -> Iterable[tuple[int, Row]]:
    """The rows of a split that are wanted, with their places in it.

    With a limit, those whose places have the smallest hashes: the same ones every time, spread over the whole split,
    and with a larger limit those of a smaller one.
    """
    described, source = manifest.split(split), manifest.source
    limits = [one for one in (limit, described.limit) if one is not None]
    if limits and described.n is not None and source and source.streaming:
        return _known(manifest, split, min(limits), described.n)
    return _drawn(rows(manifest, split), min(limits, default=None))


def _known(manifest: Manifest, split: str, limit: int, n: int) -> Iterator[tuple[int, Row]]:
    """As `_drawn` of n rows, which need not be held until the last one was seen."""
    wanted, seen = set(heapq.nsmallest(limit, range(n), key=_rank)), 0
    for place, row in enumerate(rows(manifest, split)):
        seen += 1
        if place in wanted:
            yield place, row
    if seen != n:
        raise UserError(
            f"{manifest.path}: split '{split}' has {seen} items, not the {n} that were drawn from; write n: {seen}."
        )


def _rank(place: int) -> bytes:
    return hashlib.sha256(str(place).encode()).digest()


def _drawn(found: Iterator[Row], limit: int | None) -> Iterable[tuple[int, Row]]:
    """The rows with their places in the file; with a limit, those whose places have the smallest hashes."""
    if limit is None:
        return enumerate(found)
    ranked = heapq.nsmallest(limit, enumerate(found), key=lambda one: _rank(one[0]))
    return sorted(ranked, key=lambda one: one[0])
