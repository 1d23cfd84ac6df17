"""Digests of training data: over texts, and over the bytes of every picture.

A picture is read once. If reading takes long, the digests are cached beside the runs, with the size and modification
time of each file, so that the next run, or the next point of a sweep in another process, does not read all files again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.core.files import read_json, write_json
from forgetbench.core.records import ImageRef
from forgetbench.data.mix import WeightedSet
from forgetbench.data.picture_files import is_archive
from forgetbench.data.pictures import read_image
from forgetbench.data.tables import content_name, is_cell
from forgetbench.terminal.progress import tracked

DIGEST_VERSION = 2
"""Version 1 was over the names of pictures, not over their bytes."""
CACHE_FROM_S = 5.0
"""Digests are cached if reading takes longer, in seconds."""
_BAR_FROM = 2000
"""A progress bar is shown from this number of pictures on."""
_SETTLED_NS = 2 * 10**9
"""A file younger than this may change again with the same modification time: file systems count in coarse steps."""

State = tuple[int, int]
"""(Size of a file, its modification time in nanoseconds)."""


class DataDigests:
    """Digests of the datasets of a run's stages."""

    def __init__(self, cache: Path | None = None) -> None:
        """Start without digests.

        Args:
            cache: folder of digests from earlier runs, and for new ones; None for no cache.
        """
        self._cache = cache
        self._pictures: dict[tuple[str, str], str] = {}

    def digest(self, sets: Sequence[WeightedSet]) -> str:
        """Digest of the rendered items and of the bytes of their pictures.

        Raises:
            UserError: a picture cannot be read.
        """
        self._read_pictures(sets)
        digest = hashlib.sha256()
        for dataset in sets:
            digest.update(json.dumps([dataset.name, dataset.weight]).encode())
            for sample in dataset.samples:
                pictures = [self._pictures[image.container, image.name] for image in sample.images]
                digest.update(json.dumps([sample.id, sample.prompt, sample.answer, pictures, *sample.layout]).encode())
        return digest.hexdigest()

    def _read_pictures(self, sets: Sequence[WeightedSet]) -> None:
        new = {
            (image.container, image.name): image
            for dataset in sets
            for sample in dataset.samples
            for image in sample.images
            if (image.container, image.name) not in self._pictures
        }
        by_container = defaultdict[str, list[ImageRef]](list)
        for (container, _), image in new.items():
            if image.data is not None or is_cell(container):  # its name is a digest of its bytes
                content = image.name if image.data is None else content_name(image.data)
                self._pictures[container, image.name] = content
            else:
                by_container[container].append(image)
        for container, images in by_container.items():
            self._read_files(container, images)

    def _read_files(self, container: str, images: Sequence[ImageRef]) -> None:
        path = (
            self._cache and self._cache / f"{hashlib.sha256(str(Path(container).resolve()).encode()).hexdigest()}.json"
        )
        cached, fresh = _read_cache(path), dict[str, list[Any]]()
        started_s = time.monotonic()
        for image in tracked(images, f"reading pictures of {container}", "pictures", _BAR_FROM):
            state = _state(image)
            known = cached.get(image.name, [None])
            if state and known[:-1] == list(state):
                digest = str(known[-1])
            else:
                digest = _known_digest(image, state) if state else _digest(image)
            if state:
                fresh[image.name] = [*state, digest]
            self._pictures[container, image.name] = digest
        if path and time.monotonic() - started_s > CACHE_FROM_S:
            write_json(path, cached | fresh)


def _state(image: ImageRef) -> State | None:
    """Size and time of a picture's file; None if they would not reveal a change, or if there is no file."""
    container = Path(image.container)
    with suppress(OSError, ValueError):
        state = (container if is_archive(image.container) else container / image.name).stat()
        if time.time_ns() - state.st_mtime_ns > _SETTLED_NS:
            return state.st_size, state.st_mtime_ns
    return None


def _digest(image: ImageRef) -> str:
    return hashlib.sha256(read_image(image)).hexdigest()


@lru_cache(maxsize=1_000_000)
def _known_digest(image: ImageRef, state: State) -> str:
    # The points of a sweep in one process show the same pictures.
    return _digest(image)


def _read_cache(path: Path | None) -> dict[str, list[Any]]:
    with suppress(UserError, AttributeError):
        if path and path.is_file():
            return {
                name: entry for name, entry in read_json(path).items() if isinstance(entry, list) and len(entry) == 3
            }
    return {}
