"""One dataset's prompts as model inputs, made once and then memory-mapped by every checkpoint and process.

<folder>/prompts-*.safetensors    tensors of every item, named <item>/<input>
<folder>/pictures-*.safetensors   those of every distinct set of pictures; no pixels where these are larger than allowed
<folder>/meta.json                checksums of all, checked whenever the folder is opened, and the items' pictures
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
"""Rows of one file: as many are in memory while they are made."""
PROMPTS, PICTURES = "prompts", "pictures"


class EncodedSet:
    """The prompts of one dataset, by item number."""

    def __init__(self, samples: Sequence[Sample], encoder: Encoder, folder: Path) -> None:
        """Open what `encode` has written."""
        self._samples, self._encoder = samples, encoder
        self._prompts, self._pictures = _Rows(folder, PROMPTS), _Rows(folder, PICTURES)
        self._row_of: list[int | None] = _meta(folder)["pictures"]
        self.lengths = [len(self.tokens(i)["input_ids"]) for i in range(len(samples))]
        """Tokens of every prompt, picture tokens included."""

    def tokens(self, index: int) -> dict[str, Tensor]:
        """One prompt's inputs per token."""
        return self._prompts.tensors(index)

    def prompt(self, index: int, pixels: bool = True) -> Encoded:
        """One prompt; without `pixels`, its pictures' sizes and counts alone."""
        row = self._row_of[index]
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
    """What a folder says of itself, if its files are as they were written."""
    meta = _meta(folder)
    if meta.get("format") == _FORMAT:
        verify(meta.pop("content"), json_digest(meta))
        verify(meta["files"], _checksums(folder))
    return meta


def _suffices(meta: Mapping[str, Any], max_bytes: int) -> bool:
    """Whether what is there is of this version and holds the pixels that are allowed now."""
    if meta.get("format") != _FORMAT:
        return False
    left_out_at: int | None = meta["left_out_at"]
    return left_out_at is None or left_out_at >= max_bytes


def _checksums(folder: Path) -> dict[str, str]:
    return {path.name: file_checksum(path) for path in sorted(folder.glob("*.safetensors"))}


def _write(samples: Sequence[Sample], encoder: Encoder, folder: Path, max_bytes: int) -> None:
    rows: dict[tuple[ImageRef, ...], int] = {}
    free = max_bytes
    prompts, pictures = _Writer(folder, PROMPTS), _Writer(folder, PICTURES)
    for sample in samples:
        encoded = encoder.encode(sample)
        prompts.add(encoded.tokens)
        if sample.images and sample.images not in rows:
            rows[sample.images] = len(rows)
            free -= sum(tensor.nbytes for tensor in encoded.pictures.values())
            pictures.add({key: value for key, value in encoded.pictures.items() if free >= 0 or key not in PIXELS})
    prompts.flush()
    pictures.flush()
    meta = {
        "format": _FORMAT,
        "files": _checksums(folder),
        "left_out_at": max_bytes if free < 0 else None,
        "pictures": [rows.get(sample.images) for sample in samples],
    }
    write_json(folder / _META, meta | {"content": json_digest(meta)})


class _Writer:
    """Puts rows of named tensors into files, holding no more than one file's."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._n_files, self._rows = 0, 0
        self._held: dict[str, Tensor] = {}

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        for name, value in tensors.items():
            # A copy: tensors that share memory are refused.
            self._held[f"{self._rows}/{name}"] = value.clone(memory_format=torch.contiguous_format)
        self._rows += 1
        if self._rows % _ROWS == 0:
            self.flush()

    def flush(self) -> None:
        if self._held:
            save_file(self._held, self._folder / f"{self._name}-{self._n_files:05}.safetensors")
            self._n_files += 1
            self._held = {}


class _Rows:
    """Random access to the rows of such files; only what is touched is read.

    A tensor is a view of the file: to change it in place never reaches the file, but does reach the next reader here.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._held: dict[int, tuple[Any, list[str]]] = {}
        for path in sorted(folder.glob(f"{name}-*.safetensors")):
            file: Any = safe_open(path, "pt")
            for key in file.keys():  # noqa: SIM118 - not a mapping
                row, _, tensor = key.partition("/")
                self._held.setdefault(int(row), (file, []))[1].append(tensor)

    def tensors(self, row: int, without: Container[str] = ()) -> dict[str, Tensor]:
        file, names = self._held.get(row, (None, []))  # a picture may have nothing but pixels, and they be left out
        return {name: file.get_tensor(f"{row}/{name}") for name in names if name not in without}
