"""Pass a set's pictures through CLIP, keep what it says as it comes, and show how far it is."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

from forgetbench.core.errors import UserError
from forgetbench.core.records import ImageRef
from forgetbench.data.build.clip import Clip
from forgetbench.data.build.pictures import Picture
from forgetbench.data.build.scores import Scores
from forgetbench.data.pictures import decode_image
from forgetbench.terminal.console import console

SAVE_S = 60.0
"""Seconds between saves; what a kill without notice can cost."""


@dataclass
class _Batch:
    """Pictures ready for the model, and those that could not be read."""

    ids: list[str] = field(default_factory=list)
    pixels_BP: Tensor | None = None
    broken: dict[str, str] = field(default_factory=dict)


def score(
    clip: Clip, scores: Scores, pictures: Sequence[Picture], folder: Path, k: int, batch_size: int
) -> tuple[dict[str, list[int]], dict[str, str]]:
    """The nearest names of pictures, from what was kept before and from the model.

    Args:
        clip: the model.
        scores: what was kept before, and where more is kept.
        pictures: those wanted.
        folder: what their ids are relative to.
        k: how many names of each.
        batch_size: pictures in a pass of the model.

    Returns:
        Picture's id -> indices of the k nearest names, best first; and, of each picture that cannot be read, why. The
        latter are tried again next time.
    """
    sizes = {picture.id: _n_bytes(folder / picture.id) for picture in pictures}
    nearest = scores.read(sizes)
    left = [picture.id for picture in pictures if picture.id not in nearest]
    broken: dict[str, str] = {}
    unsaved: dict[str, list[int]] = {}
    saved_at = time.monotonic()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("CLIP", total=len(sizes), completed=len(nearest))
        try:
            for batch in _batches(clip, left, folder, batch_size):
                broken |= batch.broken
                if batch.pixels_BP is not None:
                    indices_BK = clip.nearest(batch.pixels_BP, scores.texts_ND, k)
                    unsaved |= dict(zip(batch.ids, indices_BK.tolist(), strict=True))
                progress.advance(task, len(batch.ids) + len(batch.broken))
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
        return 0  # it will be told with the broken ones


def _batches(clip: Clip, ids: Sequence[str], folder: Path, size: int) -> Iterator[_Batch]:
    """Batches in order; while the model works on one, the next few are decoded in threads."""
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
    for one in ids:
        try:
            decoded.append(decode_image(ImageRef(str(folder), one)))
            batch.ids.append(one)
        except UserError as error:
            batch.broken[one] = str(error).splitlines()[0]
    if decoded:
        batch.pixels_BP = clip.pixels(decoded)
    return batch


class _Speed(ProgressColumn):
    """Pictures a second of this run."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} pictures/s" if task.speed else "- pictures/s")
