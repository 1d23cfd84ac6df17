"""Build a target dataset: list its pictures, find their hard negatives, write the questions."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import PIL
import torch
import transformers

import forgetbench
from forgetbench.core.errors import UserError
from forgetbench.core.files import replacing, write_json
from forgetbench.data.build import Options, published
from forgetbench.data.build.clip import Clip, load_clip
from forgetbench.data.build.pictures import PublishedDataset
from forgetbench.data.build.questions import CANDIDATES, TEMPLATE, WRONG, distinct, option_letter, options
from forgetbench.data.build.score import score
from forgetbench.data.build.scores import Scores
from forgetbench.data.catalogue import Catalogue
from forgetbench.terminal.console import say

SCORES = "clip_scores"
PICTURES = "pictures"
RECORD = "build.json"
_SHOWN = 10


def build(name: str, given: Options) -> None:
    """Write a dataset's questions and a record of how they were made; see `commands.data_build`."""
    folder = Catalogue().load(name).root
    source = published.read(name, given.images or folder.parent / published.target(name).folder).limit_pictures(
        given.limit
    )
    names = distinct(source.names)
    if len(names) <= WRONG:
        raise UserError(f"{source.folder} has {len(names)} classes of different names; a question needs {WRONG + 1}.")
    clip = load_clip(given.clip)
    pictures = _place_pictures(source, folder)
    scores = Scores(folder / SCORES, clip, tuple(TEMPLATE.format(name=name) for name in names))
    # One more than the candidates, because the right name is usually among the nearest.
    nearest, broken = score(clip, scores, source.pictures, pictures, CANDIDATES + 1, given.batch_size)
    if not nearest:
        raise UserError(f"{name}: none of {len(broken)} pictures can be read. {next(iter(broken.values()))}")
    (folder / RECORD).unlink(missing_ok=True)  # it describes the files that are now replaced
    counts = {
        split: _write(folder / f"{split}.jsonl", _questions(source, split, names, nearest, given.seed))
        for split in source.splits
    }
    for stale in {"train", "test"} - set(counts):
        (folder / f"{stale}.jsonl").unlink(missing_ok=True)
    write_json(folder / RECORD, _record(name, source, clip, given, counts, broken))
    _print_summary(name, folder, counts, broken)


def _place_pictures(source: PublishedDataset, folder: Path) -> Path:
    """Make the pictures available in the manifest's folder: link their folder, or unpack them from tables."""
    target = folder / PICTURES
    source_root = source.folder.resolve()
    if source.unpack is None and target.resolve() == source_root:
        return target
    if target.is_symlink():
        target.unlink()
    if source.unpack is not None:
        say(f"Unpacking pictures of {source_root} into {target}.")
        source.unpack(source.pictures, target)
        return target
    if target.exists():
        raise UserError(f"{target} holds pictures unpacked from tables; to use those of {source_root}, move it away.")
    folder.mkdir(parents=True, exist_ok=True)
    # Relative inside the folder of downloads, so that the folder can be moved as a whole.
    inside = source_root.is_relative_to(folder.parent)
    target.symlink_to(os.path.relpath(source_root, folder) if inside else source_root, target_is_directory=True)
    return target


def _questions(
    source: PublishedDataset, split: str, names: tuple[str, ...], nearest: Mapping[str, list[int]], seed: int
) -> Iterator[dict[str, Any]]:
    """The questions of a split, sorted by id; pictures that could not be read are left out."""
    for picture in source.pictures:
        if picture.split != split or picture.id not in nearest:
            continue
        answer = source.names[picture.label].strip()
        shown = options(answer, [names[index] for index in nearest[picture.id]], f"{seed}\0{picture.id}")
        wnid = {"wnid": source.wnids[picture.label]} if source.wnids else {}
        yield {
            "id": picture.id,
            "image": picture.id,
            "options": list(shown),
            "answer": option_letter(shown, answer),
            "class_name": answer,
            "label": picture.label,
            **wnid,
        }


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Write JSON lines; returns their number and the file's sha256."""
    n, digest = 0, hashlib.sha256()
    with replacing(path) as temporary, temporary.open("wb") as file:
        for n, row in enumerate(rows, start=1):  # noqa: B007 - n is what is counted
            line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
            digest.update(line)
            file.write(line)
    return {"n": n, "sha256": digest.hexdigest()}


def _record(
    name: str,
    source: PublishedDataset,
    clip: Clip,
    given: Options,
    counts: Mapping[str, Any],
    broken: Mapping[str, str],
) -> dict[str, Any]:
    return {
        "name": name,
        "source": {"layout": source.layout, "folder": str(source.folder.resolve())},
        "clip": {"path": clip.path, "sha256": clip.digest, "template": TEMPLATE},
        "candidates": CANDIDATES,
        "wrong_options": WRONG,
        "seed": given.seed,
        "limit": given.limit,
        "splits": counts,
        "left_out": broken,
        "versions": {
            "forgetbench": forgetbench.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "pillow": PIL.__version__,
        },
    }


def _print_summary(name: str, folder: Path, counts: Mapping[str, Any], broken: Mapping[str, str]) -> None:
    for reason in list(broken.values())[:_SHOWN]:
        say(reason)
    if broken:
        say(f"{len(broken)} pictures were left out, as listed in {folder / RECORD}; repair them and build again.")
    sizes = ", ".join(f"{split} {count['n']:,}" for split, count in counts.items())
    say(f"{name}: {sizes} questions in {folder}. Next: forgetbench data check {name}")
