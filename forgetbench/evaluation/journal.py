"""The finished batches of an unfinished cell, one line each, so that a kill loses one batch at most.

Each line starts with a checksum of the rest. A line that was cut short or edited is ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from forgetbench.core.files import naming
from forgetbench.core.records import Prediction
from forgetbench.core.store import checksum, say_damaged, verify


@dataclass(frozen=True)
class Entry:
    """One finished batch."""

    items: str
    """Digest of its item ids: after a kill the batches may be composed in another way."""
    seconds: float
    """Time that the model took to answer."""
    predictions: Sequence[Prediction]


class Journal:
    """The file of one process; all processes of a cell write into the same folder."""

    def __init__(self, folder: Path, rank: int) -> None:
        """Use `<folder>/<rank>.jsonl`."""
        self._folder, self._path = folder, folder / f"{rank}.jsonl"

    def read(self) -> dict[int, Entry]:
        """Finished batches of all processes, by number."""
        entries: dict[int, Entry] = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            lines = path.read_bytes().split(b"\n")
            for place, line in enumerate(lines, start=1):
                written, _, body = line.partition(b" ")
                try:
                    number, entry = _parse_entry(written, body)
                    entries[number] = entry
                except (ValueError, TypeError, RecursionError):
                    if line and place < len(lines):
                        say_damaged(f"{path}:{place}", "its batch is asked again")
        return entries

    def add(self, number: int, entry: Entry) -> None:
        """Keep a finished batch."""
        rows = [astuple(prediction) for prediction in entry.predictions]
        body = json.dumps([number, entry.items, entry.seconds, rows]).encode()
        self._folder.mkdir(parents=True, exist_ok=True)
        with naming(self._path), self._path.open("a+b") as file:
            # If a kill cut the last line short, begin a new line.
            if file.tell() and file.seek(-1, os.SEEK_END) and file.read() != b"\n":
                file.write(b"\n")
            file.write(_checksum(body) + b" " + body + b"\n")


def _parse_entry(written: bytes, body: bytes) -> tuple[int, Entry]:
    verify(written, _checksum(body))
    number, items, seconds, rows = json.loads(body)
    return number, Entry(items, seconds, [_prediction(*row) for row in rows])


def _prediction(logprobs: list[float] | None, text: str | None, cut_off: bool | None = None) -> Prediction:
    """A prediction from one row; older journals have no `cut_off`."""
    return Prediction(None if logprobs is None else tuple(logprobs), text, cut_off)


def _checksum(body: bytes) -> bytes:
    return checksum(body)[:16].encode()
