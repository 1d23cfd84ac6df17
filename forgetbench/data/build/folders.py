"""Classification datasets of picture files: ILSVRC's folders, ImageNetV2's folders, and lists like VLMClassifier's."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath

from forgetbench.core.errors import UserError
from forgetbench.data.build.pictures import Picture, PublishedDataset

SUFFIXES = {".jpeg", ".jpg", ".png"}
VALIDATION_LABELS = "LOC_val_solution.csv"
_KAGGLE = "ILSVRC/Data/CLS-LOC"
_V2 = "imagenetv2-matched-frequency-format-val"


@lru_cache(maxsize=1)
def imagenet_classes() -> Mapping[str, str]:
    """WordNet id -> first synonym of ImageNet-1k's classes, in the order of their labels.

    998 of the names are distinct: there are two cranes and two maillots.
    """
    lines = Path(__file__).with_name("imagenet_classes.tsv").read_text("utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


def ilsvrc(folder: Path) -> PublishedDataset | None:
    """ImageNet-1k as ILSVRC's folder or as Kaggle's archive; either split may be absent.

    The validation pictures become the test split. They are in class folders like the training pictures, or all in one
    folder with Kaggle's `LOC_val_solution.csv` next to it.

    Raises:
        UserError: a folder is no class, or a validation picture has no class.
    """
    known = (base for base in (folder, folder / _KAGGLE) if (base / "train").is_dir() or (base / "val").is_dir())
    base = next(known, None)
    if base is None:
        return None
    labels = {wnid: label for label, wnid in enumerate(imagenet_classes())}
    pictures = list(_by_class(base, "train", "train", labels))
    flat = [file for file in _files(base / "val") if file.suffix.lower() in SUFFIXES]
    pictures += _validation(folder, flat, labels) if flat else _by_class(base, "val", "test", labels)
    return _imagenet("ilsvrc", base, pictures)


def imagenetv2(folder: Path) -> PublishedDataset | None:
    """ImageNetV2: a folder per class, named by the label (so that 10 sorts before 2)."""
    base = folder / _V2 if (folder / _V2).is_dir() else folder
    labels = {str(label): label for label in range(len(imagenet_classes()))}
    if not any((base / name).is_dir() for name in labels):
        return None
    return _imagenet("imagenetv2", base, list(_by_class(base, ".", "test", labels)))


def from_list(file: str, folder: Path) -> PublishedDataset | None:
    """A dataset given by a list, JSON lines of {image, label, split}.

    The list's paths come from its author's machine. As many leading folders are dropped from every path as it takes to
    find the first picture here.

    Raises:
        UserError: the list is damaged, or pictures that it names are not in the folder.
    """
    path = folder / file
    if not path.is_file():
        return None
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        entries = [(PurePosixPath(row["image"]).parts, str(row["label"]), str(row["split"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not JSON lines of {{image, label, split}} ({error!r}).") from error
    if unknown := {split for _, _, split in entries} - {"train", "test"}:
        raise UserError(f"{path}: splits are train and test, not {', '.join(sorted(unknown))}.")
    cut = _n_missing_folders(path, entries[0][0] if entries else ())
    names = tuple(sorted({name for _, name, _ in entries}))
    labels = {name: label for label, name in enumerate(names)}
    pictures = [Picture("/".join(parts[cut:]), split, labels[name]) for parts, name, split in entries]
    if absent := [picture.id for picture in pictures if not (folder / picture.id).is_file()]:
        raise UserError(
            f"{path} names {len(absent)} pictures that are not in {folder}, such as {absent[0]}; download them too."
        )
    return PublishedDataset(file, folder, names, pictures)


def _n_missing_folders(path: Path, parts: tuple[str, ...]) -> int:
    """Number of leading folders of the list's paths that do not exist here."""
    for cut in range(len(parts)):
        if ".." not in parts[cut:] and (path.parent / PurePosixPath(*parts[cut:])).is_file():
            return cut
    raise UserError(
        f"{path} begins with the picture {'/'.join(parts) or '(none)'}, and no end of that path is in {path.parent}; "
        "put the pictures beside the list."
    )


def _imagenet(layout: str, folder: Path, pictures: list[Picture]) -> PublishedDataset:
    classes = imagenet_classes()
    return PublishedDataset(layout, folder, tuple(classes.values()), pictures, tuple(classes))


def _by_class(base: Path, name: str, split: str, labels: Mapping[str, int]) -> Iterator[Picture]:
    for inner in _files(base / name):
        if not inner.is_dir():
            continue
        if inner.name not in labels:
            raise UserError(
                f"{inner} is not named by a class of ImageNet-1k ({next(iter(labels))}, ...); move it away."
            )
        for file in _files(inner):
            if file.suffix.lower() in SUFFIXES:
                yield Picture(file.relative_to(base).as_posix(), split, labels[inner.name])


def _validation(folder: Path, files: list[Path], labels: Mapping[str, int]) -> Iterator[Picture]:
    """Validation pictures in a single folder, labelled by Kaggle's list: `ImageId,PredictionString`."""
    base = files[0].parents[1]
    path = next((here / VALIDATION_LABELS for here in (folder, base) if (here / VALIDATION_LABELS).is_file()), None)
    if path is None:
        raise UserError(
            f"{files[0].parent}: the pictures are in one folder, so nothing says their classes. Put Kaggle's "
            f"{VALIDATION_LABELS} into {folder}, or sort the pictures into folders named by their WordNet ids."
        )
    with path.open(encoding="utf-8", newline="") as opened:
        # The prediction string continues with the boxes of the objects.
        wnids = {row[0]: (row[1].split() or [""])[0] for row in csv.reader(opened) if len(row) > 1}
    for file in files:
        label = labels.get(wnids.get(file.stem, ""))
        if label is None:
            raise UserError(f"{path} has no class of ImageNet-1k for {file.name}; download the list again.")
        yield Picture(file.relative_to(base).as_posix(), "test", label)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
