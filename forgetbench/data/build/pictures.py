"""A published classification dataset on disk: its pictures and their classes."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Picture:
    """A picture of a classification dataset."""

    id: str
    """Its path in the dataset's folder, with forward slashes; the draw of its wrong options depends on it."""
    split: str
    """`train` or `test`."""
    label: int
    """Index of its class."""


@dataclass(frozen=True)
class PublishedDataset:
    """A classification dataset in one of its published layouts."""

    layout: str
    folder: Path
    """The folder that the pictures' ids are relative to, or the folder of the tables."""
    names: tuple[str, ...]
    """Name of each class, as CLIP and the question use it; two classes may share a name."""
    pictures: Sequence[Picture]
    wnids: tuple[str, ...] = ()
    """WordNet id of each class, if the dataset has them."""
    unpack: Callable[[Sequence[Picture], Path], None] | None = None
    """Writes pictures from tables to a folder; None if they already are files."""

    @property
    def splits(self) -> list[str]:
        """The splits that have pictures here, `train` first."""
        names = {picture.split for picture in self.pictures}
        return [split for split in ("train", "test") if split in names]

    def limit_pictures(self, limit: int | None) -> PublishedDataset:
        """Keep at most `limit` pictures of each split, those whose ids have the smallest hashes; sorted by id."""
        if limit is None:
            kept = list(self.pictures)
        else:
            by_split = ([picture for picture in self.pictures if picture.split == split] for split in self.splits)
            kept = [
                picture for split_pictures in by_split for picture in heapq.nsmallest(limit, split_pictures, key=_hash)
            ]
        return replace(self, pictures=sorted(kept, key=lambda picture: picture.id))


def _hash(picture: Picture) -> bytes:
    return hashlib.sha256(picture.id.encode()).digest()
