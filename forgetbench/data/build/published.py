"""The classification datasets that targets can be built from, and their published layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from forgetbench.core.errors import UserError
from forgetbench.core.options import nearest
from forgetbench.data.build import folders, tables
from forgetbench.data.build.pictures import PublishedDataset

Layout = Callable[[Path], PublishedDataset | None]
"""Lists a folder's pictures; returns None if the folder has another layout."""


@dataclass(frozen=True)
class Target:
    """A dataset to build, and the source of its pictures."""

    folder: str
    """Folder of the pictures, below the folder of downloads."""
    expected: str
    """Expected content of that folder, for a message."""
    layouts: tuple[Layout, ...]
    """Tried in order."""


TARGETS = {
    "imagenet_vqa": Target(
        "imagenet",
        "train/<wnid>/*.JPEG and val/ (the ILSVRC folder, or Kaggle's archive unpacked), or the Hub's data/*.parquet",
        (folders.ilsvrc, tables.imagenet),
    ),
    "imagenetv2_vqa": Target(
        "imagenetv2",
        "imagenetv2-matched-frequency-format-val/<0 to 999>/*.jpeg",
        (folders.imagenetv2,),
    ),
    "flowers102_vqa": Target(
        "flowers102",
        "VLMClassifier's flowers.jsonl and jpg/*.jpg",
        (partial(folders.from_list, "flowers.jsonl"),),
    ),
    "caltech101_vqa": Target(
        "caltech101",
        "VLMClassifier's caltech.jsonl and 101_ObjectCategories/<category>/*.jpg",
        (partial(folders.from_list, "caltech.jsonl"),),
    ),
    "stanford_cars_vqa": Target(
        "stanford_cars",
        "VLMClassifier's cars.jsonl and the pictures it names, or the Hub's data/*.parquet",
        (partial(folders.from_list, "cars.jsonl"), tables.cars),
    ),
}


def target(name: str) -> Target:
    """The target dataset of a name.

    Raises:
        UserError: there is no target of that name.
    """
    if name not in TARGETS:
        raise UserError(f"There is nothing to build under the name '{name}'. {nearest(name, [*TARGETS], [*TARGETS])}")
    return TARGETS[name]


def read(name: str, folder: Path) -> PublishedDataset:
    """List the pictures that a target is built from.

    Raises:
        UserError: the folder does not exist, has none of the target's layouts, or is inconsistent.
    """
    known = target(name)
    if folder.is_dir():
        for layout in known.layouts:
            published = layout(folder)
            if published is not None and not published.pictures:
                raise UserError(
                    f"{name}: {published.folder} has the right folders and no pictures in them; unpack them."
                )
            if published is not None:
                return published
    problem = "holds none of the layouts known" if folder.is_dir() else "does not exist"
    raise UserError(
        f"{name}: {folder} {problem}. Expected there: {known.expected}.\n"
        "Download the pictures as docs/data.md says (Building the paper's targets), or name their folder: --images."
    )
