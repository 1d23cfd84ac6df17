"""A dataset's prompts as model inputs, encoded once and then memory-mapped by every checkpoint and process.

<folder>/prompts-*.safetensors    token tensors of every item, named <item>/<input>
<folder>/pictures-*.safetensors   picture tensors of every distinct set of pictures; no pixels beyond the size limit
<folder>/meta.json                checksums of all files, checked when the folder is opened, and the items' pictures
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from forgetbench.core.files import write_json
from forgetbench.core.records import ImageRef, Sample
from forgetbench.core.store import Store, file_checksum, json_digest, verify
from forgetbench.data.collate import PIXELS, Encoded, Encoder

_FORMAT = 3
_META = "meta.json"
_ROWS = 64
"""Rows per file; so many are in memory while a file is written."""
PROMPTS, PICTURES = "prompts", "pictures"


class EncodedSet:
    """The encoded prompts of a dataset, by item index."""

    def __init__(self, samples: Sequence[Sample], encoder: Encoder, folder: Path) -> None:
        """Open a folder that `encode` has written."""
        self._samples, self._encoder = samples, encoder
        self._prompts, self._pictures = _TensorFiles(folder, PROMPTS), _TensorFiles(folder, PICTURES)
        self._row_of: list[int | None] = _meta(folder)["pictures"]
        self.lengths = [len(self.tokens(i)["input_ids"]) for i in range(len(samples))]
        """Number of tokens of each prompt, picture tokens included."""

    def tokens(self, index: int) -> dict[str, Tensor]:
        """The per-token inputs of a prompt."""
        return self._prompts.tensors(index)

    def prompt(self, index: int, pixels: bool = True) -> Encoded:
        """A prompt; without `pixels`, its picture tensors are only sizes and counts."""
        row = self._row_of[index]
        pictures = {} if row is None else self._pictures.tensors(row, without=() if pixels else PIXELS)
        if pixels and row is not None and not pictures.keys() & set(PIXELS):
            pictures = self._encoder.prompt(self._samples[index]).pictures
        return Encoded(self.tokens(index), pictures, self._encoder.answer_type)


def encode(samples: Sequence[Sample], encoder: Encoder, folder: Path, max_bytes: int) -> EncodedSet:
    """Open a dataset's encoded prompts; encode them first if they are absent or damaged.

    Args:
        samples: the dataset.
        encoder: the evaluated model's encoder.
        folder: unique to these samples and this encoder, for example named by a digest of both.
        max_bytes: store no pixels beyond this size; the remaining pictures are decoded when they are needed.
    """
    store = Store(folder.parent, damage=(OSError,))  # a file may be missing
    with store.locked(folder.name):
        meta = store.read(folder.name, _checked_meta)
        if meta is None or not _suffices(meta, max_bytes):
            with store.writing(folder.name) as temporary:
                temporary.mkdir()
                _write(samples, encoder, temporary, max_bytes)
    return EncodedSet(samples, encoder, folder)


def _meta(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / _META).read_text("utf-8")))


def _checked_meta(folder: Path) -> dict[str, Any]:
    """Read a folder's meta.json and verify the checksums of its files."""
    meta = _meta(folder)
    if meta.get("format") == _FORMAT:
        verify(meta.pop("content"), json_digest(meta))
        verify(meta["files"], _checksums(folder))
    return meta


def _suffices(meta: Mapping[str, Any], max_bytes: int) -> bool:
    """Whether the stored prompts have the current format and hold all the pixels that `max_bytes` allows."""
    if meta.get("format") != _FORMAT:
        return False
    left_out_at: int | None = meta["left_out_at"]
    return left_out_at is None or left_out_at >= max_bytes


def _checksums(folder: Path) -> dict[str, str]:
    return {path.name: file_checksum(path) for path in sorted(folder.glob("*.safetensors"))}


def _write(samples: Sequence[Sample], encoder: Encoder, folder: Path, max_bytes: int) -> None:
    row_of_pictures: dict[tuple[ImageRef, ...], int] = {}
    bytes_left = max_bytes
    prompts, pictures = _TensorWriter(folder, PROMPTS), _TensorWriter(folder, PICTURES)
    for sample in samples:
        encoded = encoder.encode(sample)
        prompts.add(encoded.tokens)
        if sample.images and sample.images not in row_of_pictures:
            row_of_pictures[sample.images] = len(row_of_pictures)
            bytes_left -= sum(tensor.nbytes for tensor in encoded.pictures.values())
            pictures.add(
                {key: value for key, value in encoded.pictures.items() if bytes_left >= 0 or key not in PIXELS}
            )
    prompts.flush()
    pictures.flush()
    meta = {
        "format": _FORMAT,
        "files": _checksums(folder),
        "left_out_at": max_bytes if bytes_left < 0 else None,
        "pictures": [row_of_pictures.get(sample.images) for sample in samples],
    }
    write_json(folder / _META, meta | {"content": json_digest(meta)})


class _TensorWriter:
    """Writes rows of named tensors into files; at most one file's rows are in memory."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._n_files, self._rows = 0, 0
        self._tensors: dict[str, Tensor] = {}

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        for name, value in tensors.items():
            # A copy, because safetensors refuses tensors that share memory.
            self._tensors[f"{self._rows}/{name}"] = value.clone(memory_format=torch.contiguous_format)
        self._rows += 1
        if self._rows % _ROWS == 0:
            self.flush()

    def flush(self) -> None:
        if self._tensors:
            save_file(self._tensors, self._folder / f"{self._name}-{self._n_files:05}.safetensors")
            self._n_files += 1
            self._tensors = {}


class _TensorFiles:
    """Random access to rows that `_TensorWriter` wrote; only the tensors asked for are read.

    A tensor is a view of the memory-mapped file. Changing it in place does not change the file, but later reads in this
    process see the change.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._tensors: dict[int, tuple[Any, list[str]]] = {}
        for path in sorted(folder.glob(f"{name}-*.safetensors")):
            file: Any = safe_open(path, "pt")
            for key in file.keys():  # noqa: SIM118 - not a mapping
                row, _, tensor = key.partition("/")
                self._tensors.setdefault(int(row), (file, []))[1].append(tensor)

    def tensors(self, row: int, without: Container[str] = ()) -> dict[str, Tensor]:
        file, names = self._tensors.get(row, (None, []))  # no entry if a picture has only pixels and they were left out
        return {name: file.get_tensor(f"{row}/{name}") for name in names if name not in without}
