"""Read a manifest's items, from any layout, as the same frozen samples."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from forgetbench.data.manifest import Manifest, SourceKind
from forgetbench.errors import UserError
from forgetbench.records import LETTERS, AnswerKind, ImageRef, Sample

Row = dict[str, Any]
MAX_PIXELS = 100_000_000
"""Larger pictures are refused: one file of a public clip-art set has 169 million pixels."""


def load_samples(manifest: Manifest, split: str, limit: int | None = None) -> list[Sample]:
    """Read one split's items in file order.

    Args:
        manifest: a manifest with a source.
        split: name of one of its splits.
        limit: read the first items only.

    Raises:
        UserError: a file is missing, or an item does not fit the manifest; names the item.
    """
    samples = []
    for index, row in enumerate(_rows(manifest, split)):
        if limit is not None and index >= limit:
            break
        try:
            samples.append(_sample(manifest, row, index))
        except (KeyError, ValueError, IndexError, TypeError) as error:
            detail = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(
                f"{manifest.path}: item {index} of split '{split}': {detail}.\n"
                f"The item's fields: {', '.join(row)}. Map columns under `source.columns`."
            ) from error
    if not samples:
        raise UserError(f"{manifest.path}: split '{split}' has no items.")
    if len({sample.id for sample in samples}) < len(samples):
        raise UserError(f"{manifest.path}: split '{split}' repeats item ids; make `id` unique.")
    return samples


def read_image(image: ImageRef) -> bytes:
    """The encoded bytes of one picture."""
    if image.data is not None:
        return image.data
    try:
        if image.container.endswith(".zip"):
            return _zip(image.container).read(image.name)
        return (Path(image.container) / image.name).read_bytes()
    except (OSError, KeyError) as error:
        raise UserError(f"Picture '{image.name}' is not in {image.container}.") from error


def decode_image(image: ImageRef, max_pixels: int | None = None) -> Image.Image:
    """Decode one picture to RGB, shrunk to at most `max_pixels`."""
    with Image.open(io.BytesIO(read_image(image))) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise UserError(f"Picture '{image.name}' has over {MAX_PIXELS:,} pixels; shrink it first.")
        picture = opened.convert("RGB")
    if max_pixels and picture.width * picture.height > max_pixels:
        factor = (max_pixels / (picture.width * picture.height)) ** 0.5
        picture = picture.resize((max(1, int(picture.width * factor)), max(1, int(picture.height * factor))))
    return picture


@lru_cache(maxsize=8)
def _zip(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _rows(manifest: Manifest, split: str) -> Iterator[Row]:
    source = manifest.source
    assert source is not None
    rows = _hub_rows(manifest, split) if source.kind is SourceKind.hub else _file_rows(manifest, split)
    for row in rows:
        yield row | {ours: row[theirs] for ours, theirs in source.columns.items() if theirs in row}


def _file_rows(manifest: Manifest, split: str) -> Iterator[Row]:
    assert manifest.source is not None
    for name in manifest.splits[split].files:
        path = manifest.root / name
        if not path.is_file():
            raise UserError(f"{manifest.path}: file {path} of split '{split}' does not exist.")
        if manifest.source.kind is SourceKind.parquet:
            yield from _parquet_rows(path)
        elif manifest.source.kind is SourceKind.llava:
            yield from _llava_rows(path)
        else:
            yield from _jsonl_rows(path)


def _jsonl_rows(path: Path) -> Iterator[Row]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}:{number}: not JSON ({error.msg}).") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(batch_size=256):
        for row in batch.to_pylist():
            yield row | {"container": str(path)}


def _llava_rows(path: Path) -> Iterator[Row]:
    """LLaVA-Instruct's layout: each human turn and the answer after it make one item."""
    for record in json.loads(path.read_text("utf-8")):
        turns = record["conversations"]
        for turn, (human, gpt) in enumerate(zip(turns[::2], turns[1::2], strict=False)):
            yield {
                "id": f"{record['id']}-{turn}",
                "image": record.get("image"),
                "question": human["value"].replace("<image>", "").strip(),
                "answer": gpt["value"],
            }


def _hub_rows(manifest: Manifest, split: str) -> Iterator[Row]:
    import datasets

    source = manifest.source
    assert source is not None
    local = (Path(manifest.path).parent / (source.hub_id or "")).resolve()
    where = str(local) if local.is_dir() else source.hub_id
    try:
        table = datasets.load_dataset(
            where,
            source.hub_config,
            revision=None if local.is_dir() else source.revision,
            split=manifest.splits[split].hub_split or split,
        )
    except Exception as error:  # the library raises a different class for each failure
        raise UserError(f"{manifest.path}: cannot load '{where}': {str(error).splitlines()[0]}") from error
    for column, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
    for row in table:
        yield dict(row) | {"container": where}


def _sample(manifest: Manifest, row: Row, index: int) -> Sample:
    options = tuple(str(option) for option in row.get("options") or manifest.options)
    images = tuple(_images(manifest, row, index))
    lettered = "\n".join(f"{LETTERS[i]}. {option}" for i, option in enumerate(options))
    prompt = manifest.prompt.format_map({"question": "", **row, "options": lettered})
    answer, references = _answer(manifest.answer, row, options)
    item_id = str(row.get("id", index))
    labels = {**row, "image": images[0].name if images else item_id}
    clusters = tuple(f"{name}={labels[name]}" for name in manifest.cluster_by)
    class_option = row.get("class_option")
    return Sample(
        id=item_id,
        prompt=prompt.replace("<image>", "").strip(),
        answer=answer,
        kind=manifest.answer,
        images=images,
        references=references,
        options=options,
        clusters=clusters,
        class_option=None if class_option is None else int(class_option),
    )


def _images(manifest: Manifest, row: Row, index: int) -> Iterator[ImageRef]:
    assert manifest.source is not None
    value = row.get("image")
    values = value if isinstance(value, list) else [] if value is None else [value]
    for place, one in enumerate(values):
        data = one.get("bytes") if isinstance(one, dict) else one if isinstance(one, bytes) else None
        if data is not None:
            yield ImageRef(str(row["container"]), f"{index}-{place}", data)
            continue
        name = str(one["path"] if isinstance(one, dict) else one)
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"picture '{name}' is outside the dataset's folder")
        yield ImageRef(str(manifest.root / manifest.source.images), name)


def _answer(kind: AnswerKind, row: Row, options: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    value = row["answer"]
    if kind is AnswerKind.text:
        references = tuple(str(one) for one in value) if isinstance(value, list) else (str(value),)
        if not references:
            raise ValueError("`answer` lists no accepted text")
        return references[0], references
    if not options:
        raise ValueError(f"answer kind '{kind}' needs `options`")
    if kind is AnswerKind.option:
        if str(value) not in options:
            raise ValueError(f"answer '{value}' is not one of the options {options}")
        return str(value), (str(value),)
    letter = _letter(value, options)
    return letter, (letter,)


def _letter(value: object, options: tuple[str, ...]) -> str:
    """The letter of an answer given as an index, a letter, or the option's text."""
    if isinstance(value, int):
        if not 0 <= value < len(options):
            raise ValueError(f"answer {value} is not an index of {len(options)} options")
        return LETTERS[value]
    text = str(value)
    if text in options:
        return LETTERS[options.index(text)]
    if text.upper() in LETTERS[: len(options)] and len(text) == 1:
        return text.upper()
    raise ValueError(f"answer '{text}' is no letter, index or text of the options {options}")
