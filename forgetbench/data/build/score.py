"""Pass a dataset's pictures through CLIP, store the results as they come, and show progress."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from forgetbench.core.errors import UserError
from forgetbench.core.records import ImageRef
from forgetbench.data.build.clip import Clip
from forgetbench.data.build.pictures import Picture
from forgetbench.data.build.scores import Scores
from forgetbench.data.pictures import decode_image
from forgetbench.terminal.progress import progress

SAVE_S = 60.0
"""Seconds between saves, and so the most work that a kill can lose."""


@dataclass
class _Batch:
    """Pictures prepared for the model, and pictures that could not be read."""

    ids: list[str] = field(default_factory=list)
    pixels_BP: Tensor | None = None
    broken: dict[str, str] = field(default_factory=dict)


def score(
    clip: Clip, scores: Scores, pictures: Sequence[Picture], folder: Path, k: int, batch_size: int
) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Find the nearest names of pictures, from stored results or with the model.

    Args:
        clip: the model.
        scores: the stored results; new results are added.
        pictures: the pictures to score.
        folder: the folder that their ids are relative to.
        k: number of names per picture.
        batch_size: pictures in a pass of the model.

    Returns:
        Picture's id -> indices of the k nearest names, best first; and id -> reason for pictures that cannot be read,
        which are tried again next time.
    """
    sizes = {picture.id: _n_bytes(folder / picture.id) for picture in pictures}
    nearest = scores.read(sizes)
    ids_left = [picture.id for picture in pictures if picture.id not in nearest]
    broken: dict[str, str] = {}
    unsaved: dict[str, list[int]] = {}
    saved_at = time.monotonic()
    with progress(f"CLIP on {folder}", len(sizes), "pictures", len(nearest)) as advance:
        try:
            for batch in _batches(clip, ids_left, folder, batch_size):
                broken |= batch.broken
                if batch.pixels_BP is not None:
                    indices_BK = clip.nearest(batch.pixels_BP, scores.texts_ND, k)
                    unsaved |= dict(zip(batch.ids, indices_BK.tolist(), strict=True))
                advance("", len(batch.ids) + len(batch.broken))
                if time.monotonic() - saved_at > SAVE_S:
                    scores.add(unsaved, sizes)
                    nearest |= unsaved
                    unsaved, saved_at = {}, time.monotonic()
        finally:
            scores.add(unsaved, sizes)
    return nearest | unsaved, broken


def _n_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # the picture will be reported as broken


def _batches(clip: Clip, ids: Sequence[str], folder: Path, size: int) -> Iterator[_Batch]:
    """Batches in order; while the model processes a batch, threads decode the next few."""
    workers = min(8, os.cpu_count() or 1)
    coming: deque[Future[_Batch]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for start in range(0, len(ids), size):
                coming.append(pool.submit(_prepare, clip, ids[start : start + size], folder))
                if len(coming) > workers:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _prepare(clip: Clip, ids: Sequence[str], folder: Path) -> _Batch:
    batch, decoded = _Batch(), []
    for picture_id in ids:
        try:
            decoded.append(decode_image(ImageRef(str(folder), picture_id)))
            batch.ids.append(picture_id)
        except UserError as error:
            batch.broken[picture_id] = str(error).splitlines()[0]
    if decoded:
        batch.pixels_BP = clip.pixels(decoded)
    return batch
