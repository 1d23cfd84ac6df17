"""One dataset's prompts as model inputs, made once and then memory-mapped by every checkpoint and process.

<folder>/prompts.arrow    a row per item: its token tensors and the number of its pictures' row
<folder>/pictures.arrow   a row per distinct set of pictures; without pixels where these are larger than allowed
<folder>/meta.json        digests of both, checked whenever the folder is opened
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from filelock import FileLock
from torch import Tensor

from forgetbench.core.errors import UserError
from forgetbench.core.files import read_json, replacing, write_json
from forgetbench.core.records import ImageRef, Sample
from forgetbench.data.collate import PIXELS, Encoded, Encoder

_SCHEMA = pa.schema(
    [
        ("names", pa.list_(pa.string())),
        ("types", pa.list_(pa.string())),
        ("shapes", pa.list_(pa.list_(pa.int64()))),
        ("bytes", pa.list_(pa.large_binary())),
        ("picture", pa.int64()),
    ]
)
_ROWS = 64
"""Rows of one Arrow batch."""
PROMPTS, PICTURES = "prompts.arrow", "pictures.arrow"


class EncodedSet:
    """The prompts of one dataset, by item number."""

    def __init__(self, samples: Sequence[Sample], encoder: Encoder, folder: Path) -> None:
        """Open what `encode` has written."""
        self._samples, self._encoder = samples, encoder
        self._prompts, self._pictures = _Rows(folder / PROMPTS), _Rows(folder / PICTURES)
        self.lengths = [len(self.tokens(i)["input_ids"]) for i in range(len(samples))]
        """Tokens of every prompt, picture tokens included."""

    def tokens(self, index: int) -> dict[str, Tensor]:
        """One prompt's inputs per token."""
        return self._prompts.tensors(index)

    def prompt(self, index: int, pixels: bool = True) -> Encoded:
        """One prompt; without `pixels`, its pictures' sizes and counts alone."""
        row = self._prompts.picture(index)
        held = {} if row is None else self._pictures.tensors(row, without=() if pixels else PIXELS)
        if pixels and row is not None and not held.keys() & set(PIXELS):
            held = self._encoder.prompt(self._samples[index]).pictures
        return Encoded(self.tokens(index), held, self._encoder.answer_type)


def encode(samples: Sequence[Sample], encoder: Encoder, folder: Path, max_bytes: int) -> EncodedSet:
    """Open a dataset's encoded prompts, making them first if they are absent or damaged.

    Args:
        samples: the dataset.
        encoder: of the model that is asked.
        folder: a name of its own for these samples and this encoder, such as a digest of both.
        max_bytes: keep no pixels beyond this size; pictures are then decoded whenever they are needed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_suffix(".lock")
    with FileLock(lock):
        if not _is_whole(folder, max_bytes):
            for left in folder.parent.glob(f".{folder.name}.*.tmp"):  # by a kill; the lock is ours
                shutil.rmtree(left, ignore_errors=True)
            with replacing(folder) as temporary:
                temporary.mkdir()
                _write(samples, encoder, temporary, max_bytes)
        lock.unlink(missing_ok=True)
    return EncodedSet(samples, encoder, folder)


def _is_whole(folder: Path, max_bytes: int) -> bool:
    """Whether the folder is there, undamaged, and holds the pixels that are allowed now."""
    if not folder.is_dir():
        return False
    try:
        meta = read_json(folder / "meta.json")
        if meta["left_out_at"] is not None and meta["left_out_at"] < max_bytes:
            return False
        whole = bool(meta["files"] == _digests(folder))
    except (UserError, KeyError, TypeError):
        whole = False
    if not whole:
        print(f"Encoded prompts {folder} are damaged; they are made again.", file=sys.stderr)
    return whole


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.glob("*.arrow")):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _write(samples: Sequence[Sample], encoder: Encoder, folder: Path, max_bytes: int) -> None:
    rows: dict[tuple[ImageRef, ...], int] = {}
    free = max_bytes
    with _Writer(folder / PROMPTS) as prompts, _Writer(folder / PICTURES) as pictures:
        for sample in samples:
            encoded = encoder.encode(sample)
            if sample.images and sample.images not in rows:
                rows[sample.images] = len(rows)
                free -= sum(tensor.numel() * tensor.element_size() for tensor in encoded.pictures.values())
                pictures.add({key: value for key, value in encoded.pictures.items() if free >= 0 or key not in PIXELS})
            prompts.add(encoded.tokens, rows.get(sample.images))
    write_json(folder / "meta.json", {"files": _digests(folder), "left_out_at": max_bytes if free < 0 else None})


class _Writer:
    """Appends rows of named tensors to an Arrow file, holding no more than one batch."""

    def __init__(self, path: Path) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._file = pa.ipc.new_file(self._sink, _SCHEMA)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()
        self._sink.close()

    def add(self, tensors: Mapping[str, Tensor], picture: int | None = None) -> None:
        arrays = [tensor.numpy() for tensor in tensors.values()]
        self._rows.append(
            {
                "names": list(tensors),
                "types": [array.dtype.str for array in arrays],
                "shapes": [list(array.shape) for array in arrays],
                "bytes": [array.tobytes() for array in arrays],
                "picture": picture,
            }
        )
        if len(self._rows) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=_SCHEMA))
            self._rows = []


class _Rows:
    """Random access to the rows of an Arrow file; only what is touched is read."""

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]

    def tensors(self, row: int, without: Container[str] = ()) -> dict[str, Tensor]:
        return dict(self._tensors(row, without))

    def picture(self, row: int) -> int | None:
        value: int | None = self._column("picture", row).as_py()
        return value

    def _tensors(self, row: int, without: Container[str]) -> Iterator[tuple[str, Tensor]]:
        names, types, shapes = (self._column(name, row).as_py() for name in ("names", "types", "shapes"))
        held = self._column("bytes", row)
        for k, (name, kind, shape) in enumerate(zip(names, types, shapes, strict=True)):
            if name in without:
                continue
            array = np.frombuffer(held[k].as_buffer(), dtype=kind).reshape(shape)
            yield name, torch.from_numpy(array.copy())  # a tensor must not write into the file

    def _column(self, name: str, row: int) -> Any:
        return self._batches[row // _ROWS].column(name)[row % _ROWS]
