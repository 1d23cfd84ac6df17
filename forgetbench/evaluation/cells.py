"""Cells: one file of per-item predictions per checkpoint x dataset x decoding, keyed by content.

Equal key, no work; different weights can never share a result. A file that is truncated, edited or of another key is
named and made again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from forgetbench.files import replacing
from forgetbench.records import Sample

SCHEMA = pa.schema(
    [
        ("cell", pa.string()),
        ("sample_id", pa.string()),
        ("cluster", pa.list_(pa.string())),
        ("image_sha256", pa.string()),
        ("prompt", pa.string()),
        ("options", pa.list_(pa.string())),
        ("target", pa.string()),
        ("option_logprobs", pa.list_(pa.float64())),
        ("text", pa.string()),
        ("parsed", pa.string()),
        ("correct", pa.bool_()),
        ("score", pa.float64()),
        ("class_option", pa.int64()),
    ]
)


@dataclass(frozen=True)
class CellKey:
    """Everything that decides a cell's content."""

    model: str
    """Digest of the base model."""
    delta: str
    """Digest of what a checkpoint changed; empty for the base."""
    samples: str
    """Digest of the rendered items, pictures included."""
    decoding: str
    max_new_tokens: int
    """0 where nothing is generated."""
    precision: str
    batch_size: int
    """Batches are composed over the whole dataset; the size can move the last bits of a log-probability."""
    reading: int
    """Version of the rules that read answers."""

    @property
    def digest(self) -> str:
        """sha256 of the key: the cell's name."""
        return hashlib.sha256(json.dumps(self.__dict__, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Cell:
    """One stored cell."""

    digest: str
    frame: pd.DataFrame
    seconds: float
    """What making it took."""


class CellStore:
    """The folder of cells shared by all runs and sweep points under one outputs folder."""

    def __init__(self, outputs: Path) -> None:
        """Use `<outputs>/.cells`."""
        self._folder = outputs / ".cells"

    def path(self, digest: str) -> Path:
        """Where a cell is, whether or not it exists."""
        return self._folder / f"{digest}.parquet"

    def read(self, digest: str) -> Cell | None:
        """A stored cell; None if it is absent or damaged (which is said on stderr)."""
        path = self.path(digest)
        if not path.is_file():
            return None
        try:
            table = pq.read_table(path)
            metadata = table.schema.metadata or {}
            cell = Cell(digest, table.cast(SCHEMA).to_pandas(), float(metadata[b"seconds"]))
            whole = set(cell.frame["cell"]) == {digest} and metadata[b"content"].decode() == _seal(cell.frame)
        except (pa.ArrowException, OSError, ValueError, KeyError):
            whole = False
        if not whole:
            print(f"Cell {path} is damaged; it is made again.", file=sys.stderr)
            return None
        return cell

    def write(self, digest: str, rows: Sequence[dict[str, Any]], seconds: float) -> Cell:
        """Store a finished cell atomically and return it as it will be read."""
        table = pa.Table.from_pylist([{"cell": digest, **row} for row in rows], schema=SCHEMA)
        cell = Cell(digest, table.to_pandas(), round(seconds, 3))
        table = table.replace_schema_metadata({"content": _seal(cell.frame), "seconds": str(cell.seconds)})
        with replacing(self.path(digest)) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return cell


def _seal(frame: pd.DataFrame) -> str:
    """Digest of a cell's rows; a changed value breaks it."""
    text = frame.to_json(orient="records", double_precision=15)
    return hashlib.sha256(str(text).encode()).hexdigest()


def samples_digest(samples: Sequence[Sample], image_digests: Sequence[str]) -> str:
    """Digest of what the model sees and what counts as right, item by item."""
    digest = hashlib.sha256()
    for sample, image in zip(samples, image_digests, strict=True):
        fields = [sample.id, sample.prompt, sample.kind, sample.references, sample.options, sample.clusters]
        digest.update(json.dumps([*fields, sample.class_option, image]).encode())
    return digest.hexdigest()
