"""Digests of training data: over texts, and over the bytes of every picture, each read once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from rich.progress import track

from forgetbench.core.records import ImageRef
from forgetbench.data.mix import WeightedSet
from forgetbench.data.picture_files import is_archive
from forgetbench.data.pictures import read_image
from forgetbench.data.tables import content_name, is_cell
from forgetbench.terminal.console import console

DIGEST_VERSION = 2
"""1 was over the names of pictures, not over their bytes."""
_SHOWN_FROM = 2000
"""Pictures from which on a bar is shown."""
_SETTLED_NS = 2 * 10**9
"""A file that changed later may change again without another time: file systems count in coarse steps."""


class DataDigests:
    """Digests of the sets of a run's stages."""

    def __init__(self) -> None:
        """Start without a picture."""
        self._pictures: dict[tuple[str, str], str] = {}

    def of(self, sets: Sequence[WeightedSet]) -> str:
        """Digest of items as rendered, and of what their pictures hold.

        Raises:
            UserError: a picture cannot be read.
        """
        self._read(sets)
        digest = hashlib.sha256()
        for one in sets:
            digest.update(json.dumps([one.name, one.weight]).encode())
            for sample in one.samples:
                pictures = [self._pictures[image.container, image.name] for image in sample.images]
                digest.update(json.dumps([sample.id, sample.prompt, sample.answer, pictures, *sample.layout]).encode())
        return digest.hexdigest()

    def _read(self, sets: Sequence[WeightedSet]) -> None:
        images = {
            (image.container, image.name): image
            for one in sets
            for sample in one.samples
            for image in sample.images
            if (image.container, image.name) not in self._pictures
        }
        hidden = len(images) < _SHOWN_FROM or not console.is_terminal or console.quiet
        found = track(images.items(), "reading pictures", console=console, transient=True, disable=hidden)
        self._pictures |= {key: _picture_digest(image) for key, image in found}


def _picture_digest(image: ImageRef) -> str:
    """Of what a picture holds; one in a table is named by it."""
    if image.data is not None:
        return content_name(image.data)
    if is_cell(image.container):
        return image.name
    path = Path(image.container) if is_archive(image.container) else Path(image.container) / image.name
    try:
        state = path.stat()
    except (OSError, ValueError):  # under another spelling of its name, or not there, which reading it tells
        return hashlib.sha256(read_image(image)).hexdigest()
    if time.time_ns() - state.st_mtime_ns < _SETTLED_NS:
        return hashlib.sha256(read_image(image)).hexdigest()
    return _file_digest(image, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1_000_000)
def _file_digest(image: ImageRef, size: int, changed_ns: int) -> str:
    # The points of a sweep show the same pictures.
    return hashlib.sha256(read_image(image)).hexdigest()
