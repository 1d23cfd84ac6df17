"""What CLIP said of each picture, kept on disk, so that an interrupted build goes on and another seed costs nothing.

A folder per checkpoint and list of names: the texts' embeddings, and parts that are only ever added, each a file of
JSON lines {id, n_bytes, nearest} named by the digest of its content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from forgetbench.core.files import replacing, write_text
from forgetbench.data.build.clip import Clip
from forgetbench.models.tensors import fingerprint
from forgetbench.terminal.console import say

_TEXTS = "texts.safetensors"


class Scores:
    """The nearest names of pictures, by its id and its file's size: other pictures may have the same id."""

    def __init__(self, folder: Path, clip: Clip, texts: tuple[str, ...]) -> None:
        """Find what was kept of this checkpoint and these texts below `folder`; embed the texts unless it is there."""
        tokens = {name: values.tolist() for name, values in clip.tokens(texts).items()}
        described = json.dumps([clip.digest, texts, tokens], sort_keys=True)
        self.folder = folder / hashlib.sha256(described.encode()).hexdigest()[:16]
        self.texts_ND = self._texts(clip, texts)

    def _texts(self, clip: Clip, texts: tuple[str, ...]) -> torch.Tensor:
        path = self.folder / _TEXTS
        if path.is_file():
            try:
                with safe_open(path, "pt") as kept:
                    texts_ND: torch.Tensor = kept.get_tensor("texts_ND")
                    if fingerprint(texts_ND).hex() == (kept.metadata() or {}).get("sha256"):
                        return texts_ND.to(clip.model.device)
            except SafetensorError:
                pass
            say(f"{path} is damaged; embedding the class names again.")
        texts_ND = clip.embed_texts(texts)
        with replacing(path) as temporary:
            save_file({"texts_ND": texts_ND.cpu()}, temporary, {"sha256": fingerprint(texts_ND).hex()})
        return texts_ND

    def read(self, sizes: Mapping[str, int]) -> dict[str, list[int]]:
        """What was kept of some pictures; a damaged part is dropped, with a word.

        Args:
            sizes: picture's id -> its file's size in bytes.

        Returns:
            Picture's id -> indices of its nearest texts, best first.
        """
        found: dict[str, list[int]] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            content = path.read_bytes()
            if _digest(content) != path.stem:
                say(f"{path} is damaged; its pictures are scored again.")
                path.unlink()
                continue
            rows = map(json.loads, content.splitlines())
            found |= {row["id"]: row["nearest"] for row in rows if row["n_bytes"] == sizes.get(row["id"])}
        return found

    def add(self, nearest: Mapping[str, list[int]], sizes: Mapping[str, int]) -> None:
        """Keep what was found of some pictures, whose files have these sizes."""
        if not nearest:
            return
        rows = (
            {"id": picture, "n_bytes": sizes[picture], "nearest": indices}
            for picture, indices in sorted(nearest.items())
        )
        content = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(self.folder / f"{_digest(content.encode())}.jsonl", content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
