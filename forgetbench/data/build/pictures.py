"""A published classification set as it lies on disk: which pictures, of which classes."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Picture:
    """One picture of a classification set."""

    id: str
    """Its path in the set's folder, with forward slashes; what the draw of its wrong options depends on."""
    split: str
    """`train` or `test`."""
    label: int
    """Index of its class."""


@dataclass(frozen=True)
class Published:
    """A classification set in one of the layouts it is published in."""

    layout: str
    folder: Path
    """What the pictures' ids are relative to; of tables, the folder that holds them."""
    names: tuple[str, ...]
    """Name of each class, as CLIP and the question call it; two classes may share one."""
    pictures: Sequence[Picture]
    wnids: tuple[str, ...] = ()
    """WordNet id of each class, where the set has them."""
    unpack: Callable[[Sequence[Picture], Path], None] | None = None
    """Writes pictures that lie in tables to a folder; None where they are files already."""

    @property
    def splits(self) -> list[str]:
        """The splits that have pictures here, `train` first."""
        found = {picture.split for picture in self.pictures}
        return [split for split in ("train", "test") if split in found]

    def limited(self, limit: int | None) -> Published:
        """The same set, sorted by id, with at most so many pictures of each split: those whose ids hash lowest."""
        if limit is None:
            kept = list(self.pictures)
        else:
            by_split = ([one for one in self.pictures if one.split == split] for split in self.splits)
            kept = [one for pictures in by_split for one in heapq.nsmallest(limit, pictures, key=_hash)]
        return replace(self, pictures=sorted(kept, key=lambda one: one.id))


def _hash(picture: Picture) -> bytes:
    return hashlib.sha256(picture.id.encode()).digest()
