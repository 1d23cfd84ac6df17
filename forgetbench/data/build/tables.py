"""Classification datasets as Parquet from the Hub, with columns `image` and `label`."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from forgetbench.core.errors import UserError
from forgetbench.core.files import replacing
from forgetbench.data.build.folders import imagenet_classes
from forgetbench.data.build.pictures import Picture, PublishedDataset
from forgetbench.terminal.progress import tracked

Names = Callable[[list[str]], Sequence[str]]
"""Maps the class names in the tables (empty if they have none) to the names in questions."""

_BATCH = 64
"""Rows read at a time: some 10 MB of pictures."""


def imagenet(folder: Path) -> PublishedDataset | None:
    """ImageNet-1k's tables; the validation split becomes the test split, as their test split has no labels."""
    classes = imagenet_classes()
    splits = {"train": "train", "validation": "test"}
    return _tables(folder, splits, lambda _: list(classes.values()), tuple(classes))


def cars(folder: Path) -> PublishedDataset | None:
    """Stanford Cars' tables; the year moves to the front of a name, as in the paper's list."""
    return _tables(folder, {"train": "train", "test": "test"}, lambda names: [_year_first(name) for name in names])


def _year_first(name: str) -> str:
    return re.sub(r"^(.+) (\d{4})$", r"\2 \1", name)


def _tables(folder: Path, splits: dict[str, str], names: Names, wnids: tuple[str, ...] = ()) -> PublishedDataset | None:
    base = folder / "data" if (folder / "data").is_dir() else folder
    files = {
        file: splits[split] for file in sorted(base.glob("*.parquet")) if (split := file.name.split("-")[0]) in splits
    }
    if not files:
        return None
    pictures, classes = [], list[str]()
    for file, split in files.items():
        labels, table_classes = _labels(file)
        classes = classes or table_classes
        pictures += [Picture(_id(split, file, row), split, label) for row, label in enumerate(labels)]
    class_names = tuple(names(classes))
    for picture in pictures:
        if not 0 <= picture.label < len(class_names):
            raise UserError(
                f"{base}: {picture.id.rpartition('/')[0]} has the label {picture.label}, but the tables name "
                f"{len(class_names)} classes; download them as the Hub has them."
            )
    sources = {_id(split, file, 0).rpartition("/")[0]: file for file, split in files.items()}
    return PublishedDataset("parquet", base, class_names, pictures, wnids, partial(_unpack, sources))


def _id(split: str, file: Path, row: int) -> str:
    return f"{split}/{file.stem}/{row:06}.jpg"


def _labels(file: Path) -> tuple[list[int], list[str]]:
    """A table's labels, and the names of its classes if it has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            labels = table.read(columns=["label"])["label"].to_pylist()
            described = json.loads((table.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{file}: not a table with a column `label` ({error}).") from error
    feature = described.get("info", {}).get("features", {}).get("label", {})
    return labels, feature.get("names", [])


def _unpack(sources: dict[str, Path], pictures: Sequence[Picture], folder: Path) -> None:
    """Write the encoded pictures of tables to files; pictures already written from the same tables stay.

    Training draws pictures in random order, and a table would have to read a whole row group for each. A written
    picture gets its table's modification time, so that pictures of a replaced table are written again.
    """
    changed_s = {shard: _changed_s(file) for shard, file in sources.items()}
    wanted = defaultdict[str, dict[int, Path]](dict)
    for picture in pictures:
        shard, _, name = picture.id.rpartition("/")
        path = folder / picture.id
        if not path.is_file() or _changed_s(path) != changed_s[shard]:
            wanted[shard][int(Path(name).stem)] = path
    for shard, rows in tracked(wanted.items(), f"unpacking to {folder}", "tables"):
        _unpack_table(sources[shard], rows)


def _changed_s(path: Path) -> int:
    return int(path.stat().st_mtime)  # whole seconds, because some file systems store no more


def _unpack_table(file: Path, rows: dict[int, Path]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    changed_s = _changed_s(file)
    try:
        with pq.ParquetFile(file) as table:
            place = 0
            for batch in table.iter_batches(batch_size=_BATCH, columns=["image"]):
                here = [row for row in range(place, place + len(batch)) if row in rows]
                for row in here:
                    encoded = batch["image"][row - place].as_py()["bytes"]
                    with replacing(rows[row]) as temporary:
                        temporary.write_bytes(encoded)
                        os.utime(temporary, (changed_s, changed_s))
                place += len(batch)
    except (OSError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(
            f"{file}: pictures cannot be unpacked ({error!r}); the column `image` holds their bytes."
        ) from error
