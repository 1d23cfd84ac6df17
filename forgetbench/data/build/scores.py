"""Store CLIP's nearest names of each picture, so that builds resume and another seed needs no model.

Each checkpoint and list of names has a folder with the texts' embeddings and with append-only parts. A part is a file
of JSON lines {id, n_bytes, nearest}, named by the digest of its content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from forgetbench.core.store import Store, checksum, json_digest, verify
from forgetbench.data.build.clip import Clip
from forgetbench.models.tensors import fingerprint

_TEXTS = "texts"


class Scores:
    """The nearest names of pictures, by id and file size, because another picture may have the same id."""

    def __init__(self, folder: Path, clip: Clip, texts: tuple[str, ...]) -> None:
        """Open the store of this checkpoint and these texts below `folder`; embed the texts if they are not stored."""
        tokens = {name: values.tolist() for name, values in clip.tokens(texts).items()}
        store_folder = folder / json_digest([clip.digest, texts, tokens])[:16]
        self._parts = Store(store_folder, ".jsonl")
        self.texts_ND = _embedded(clip, texts, Store(store_folder, ".safetensors", damage=(SafetensorError,)))

    def read(self, sizes: Mapping[str, int]) -> dict[str, list[int]]:
        """Read the stored results of pictures; a damaged part is dropped, with a message.

        Args:
            sizes: picture's id -> its file's size in bytes.

        Returns:
            Picture's id -> indices of its nearest texts, best first.
        """
        nearest: dict[str, list[int]] = {}
        for name in self._parts.names():
            rows = self._parts.read(name, _load, "its pictures are scored again")
            if rows is None:
                self._parts.path(name).unlink(missing_ok=True)
                continue
            nearest |= {row["id"]: row["nearest"] for row in rows if row["n_bytes"] == sizes.get(row["id"])}
        return nearest

    def add(self, nearest: Mapping[str, list[int]], sizes: Mapping[str, int]) -> None:
        """Store the nearest names of pictures, with the sizes of their files."""
        if not nearest:
            return
        rows = (
            {"id": picture, "n_bytes": sizes[picture], "nearest": indices}
            for picture, indices in sorted(nearest.items())
        )
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        with self._parts.writing(_name(content)) as temporary:
            temporary.write_bytes(content)


def _embedded(clip: Clip, texts: tuple[str, ...], store: Store) -> torch.Tensor:
    """The texts' embeddings, from the store or from the model."""

    def load(path: Path) -> torch.Tensor:
        with safe_open(path, "pt") as stored:
            texts_ND: torch.Tensor = stored.get_tensor("texts_ND")
            verify(stored.metadata()["sha256"], fingerprint(texts_ND).hex())
        return texts_ND.to(clip.model.device)

    stored_texts = store.read(_TEXTS, load, "the class names are embedded again")
    if stored_texts is not None:
        return stored_texts
    texts_ND = clip.embed_texts(texts)
    with store.writing(_TEXTS) as temporary:
        temporary.write_bytes(save({"texts_ND": texts_ND.cpu()}, {"sha256": fingerprint(texts_ND).hex()}))
    return texts_ND


def _load(path: Path) -> list[dict[str, Any]]:
    """The rows of a part."""
    content = path.read_bytes()
    verify(path.stem, _name(content))
    return [json.loads(line) for line in content.splitlines()]


def _name(content: bytes) -> str:
    return checksum(content)[:32]
