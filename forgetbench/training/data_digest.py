"""Digests of training data: over texts, and over the bytes of every picture.

A picture is read once. Where that took long, what was found is kept beside the runs, by the file's size and time of
change, so that the next run, or the next point of a sweep in a process of its own, does not read all files again.
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
"""1 was over the names of pictures, not over their bytes."""
KEPT_FROM_S = 5.0
"""Seconds of reading from which on digests are kept."""
_BAR_FROM = 2000
"""Pictures from which on a bar is shown."""
_SETTLED_NS = 2 * 10**9
"""A file that changed later may change again without another time: file systems count in coarse steps."""

State = tuple[int, int]
"""Size of a file, and when it changed, in nanoseconds."""


class DataDigests:
    """Digests of the sets of a run's stages."""

    def __init__(self, kept: Path | None = None) -> None:
        """Start without a picture.

        Args:
            kept: folder of what was found before, and of what took long; None for neither.
        """
        self._kept = kept
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
        new = {
            (image.container, image.name): image
            for one in sets
            for sample in one.samples
            for image in sample.images
            if (image.container, image.name) not in self._pictures
        }
        by_container = defaultdict[str, list[ImageRef]](list)
        for (container, _), image in new.items():
            if image.data is not None or is_cell(container):  # named by what it holds
                held = image.name if image.data is None else content_name(image.data)
                self._pictures[container, image.name] = held
            else:
                by_container[container].append(image)
        for container, images in by_container.items():
            self._read_files(container, images)

    def _read_files(self, container: str, images: Sequence[ImageRef]) -> None:
        path = self._kept and self._kept / f"{hashlib.sha256(str(Path(container).resolve()).encode()).hexdigest()}.json"
        before, found = _read_kept(path), dict[str, list[Any]]()
        started_s = time.monotonic()
        for image in tracked(images, f"reading pictures of {container}", "pictures", _BAR_FROM):
            state = _state(image)
            known = before.get(image.name, [None])
            if state and known[:-1] == list(state):
                digest = str(known[-1])
            else:
                digest = _known_digest(image, state) if state else _digest(image)
            if state:
                found[image.name] = [*state, digest]
            self._pictures[container, image.name] = digest
        if path and time.monotonic() - started_s > KEPT_FROM_S:
            write_json(path, before | found)


def _state(image: ImageRef) -> State | None:
    """Size and time of a picture's file; None where they would not tell of a change, or there is none of that name."""
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


def _read_kept(path: Path | None) -> dict[str, list[Any]]:
    with suppress(UserError, AttributeError):
        if path and path.is_file():
            return {name: one for name, one in read_json(path).items() if isinstance(one, list) and len(one) == 3}
    return {}
