"""Read the stored rows of a split, all or a few, from any source: JSON, CSV, Parquet, the Hub."""

from __future__ import annotations

import hashlib
import heapq
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path, PurePath

from forgetbench.core.errors import UserError, reason
from forgetbench.core.reading import decoded, is_file, json_lines, opened, parsed_json, read_text
from forgetbench.data.adapters import ADAPTERS
from forgetbench.data.conversations import Row, is_conversation
from forgetbench.data.hub import hub_rows
from forgetbench.data.item_texts import nan_to_none, printable
from forgetbench.data.manifest import DOWNLOADS, Manifest, SourceKind
from forgetbench.data.tables import parquet_rows
from forgetbench.data.text_tables import separator, text_rows


def chosen_rows(
    manifest: Manifest, split: str, limit: int | None, observe: Callable[[Row], None] = lambda row: None
) -> Iterable[tuple[int, Row]]:
    """The rows to use of a split, with their places in it.

    With a limit, the rows whose places have the smallest hashes. They are the same every time and spread over the
    whole split; a larger limit keeps the rows of a smaller limit.

    Args:
        manifest: a manifest with a source.
        split: name of one of its splits.
        limit: at most so many rows.
        observe: called with every row of the split, used or not.
    """
    split_info, source = manifest.split(split), manifest.source
    rows = _observed(_rows(manifest, split), observe)
    limits = [value for value in (limit, split_info.limit) if value is not None]
    if limits and split_info.n is not None and source and source.streaming:
        return _draw_streamed(manifest, split, rows, min(limits), split_info.n)
    return _draw(rows, min(limits, default=None))


def _observed(rows: Iterator[Row], observe: Callable[[Row], None]) -> Iterator[Row]:
    for row in rows:
        observe(row)
        yield row


def _draw_streamed(
    manifest: Manifest, split: str, rows: Iterator[Row], limit: int, n_rows: int
) -> Iterator[tuple[int, Row]]:
    """As `_draw`, from a split of known size, so that drawn rows are yielded before all rows are read."""
    wanted, n_read = set(heapq.nsmallest(limit, range(n_rows), key=_rank)), 0
    for place, row in enumerate(rows):
        n_read += 1
        if place in wanted:
            yield place, row
    if n_read != n_rows:
        raise UserError(
            f"{manifest.path}: split '{split}' has {n_read} items, not the {n_rows} that were drawn from; "
            f"write n: {n_read}."
        )


def _rank(place: int) -> bytes:
    return hashlib.sha256(str(place).encode()).digest()


def draw_order(places: Iterable[int]) -> list[int]:
    """Sort places of rows into the order in which a growing limit draws them."""
    return sorted(places, key=_rank)


def _draw(rows: Iterator[Row], limit: int | None) -> Iterable[tuple[int, Row]]:
    """The rows with their places in the file; with a limit, the rows whose places have the smallest hashes."""
    if limit is None:
        return enumerate(rows)
    ranked = heapq.nsmallest(limit, enumerate(rows), key=lambda place_and_row: _rank(place_and_row[0]))
    return sorted(ranked, key=lambda place_and_row: place_and_row[0])


def _rows(manifest: Manifest, split: str) -> Iterator[Row]:
    """The stored items of a split; mapped columns also have our names.

    Raises:
        UserError: a file is missing or not readable, or lacks an item's references; names the file and, if it has
            lines, the line.
    """
    source = manifest.source
    assert source is not None
    rows = _hub_rows(manifest, split) if source.kind is SourceKind.hub else _file_rows(manifest, split)
    rows = _map_columns(manifest, split, map(nan_to_none, rows))
    if source.adapter:
        rows = _adapt(manifest, split, rows)
    yield from map(_references(manifest, split), _with_ids(rows))


def _with_ids(rows: Iterator[Row]) -> Iterator[Row]:
    """Give each conversation a unique id. Ids of public files may repeat (one per picture) or be absent."""
    counts = Counter[str]()
    for place, row in enumerate(rows):
        if not is_conversation(row):
            yield row
            continue
        name = str(next((row[key] for key in ("id", "question_id") if row.get(key) is not None), place))
        counts[name] += 1
        yield row | {"id": f"{name}#{counts[name]}" if counts[name] > 1 else name}


def _map_columns(manifest: Manifest, split: str, rows: Iterator[Row]) -> Iterator[Row]:
    assert manifest.source is not None
    columns = manifest.source.columns | manifest.split(split).columns
    missing = set(columns.values())
    for row in rows:
        missing = missing and missing.difference(row)
        yield row | {name: row[column] for name, column in columns.items() if column in row}
    if missing:
        names = ", ".join(sorted(missing))
        raise UserError(f"{manifest.path}: no item of split '{split}' has the column {names} (`source.columns`).")


def _hub_rows(manifest: Manifest, split: str) -> Iterator[Row]:
    """The split's rows of each configuration, one after another."""
    source = manifest.source
    assert source is not None
    for config in source.hub_configs:
        yield from hub_rows(replace(manifest, source=replace(source, hub_config=config)), split)


def _adapt(manifest: Manifest, split: str, rows: Iterator[Row]) -> Iterator[Row]:
    assert manifest.source is not None
    name = str(manifest.source.adapter)
    counter = count()
    try:
        yield from ADAPTERS[name](row for row, _ in zip(rows, counter, strict=False))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        detail = f"field {error} is missing" if isinstance(error, KeyError) else error
        raise UserError(
            f"{manifest.path}: row {next(counter) - 1} of split '{split}' is not laid out as the adapter '{name}' "
            f"expects: {detail}.\nIf the published layout has changed, copy the manifest and change `source`."
        ) from error


def _file_rows(manifest: Manifest, split: str) -> Iterator[Row]:
    assert manifest.source is not None
    kind = manifest.source.kind
    files = manifest.split(split).files
    if not files:
        raise UserError(f"{manifest.path}: split '{split}' lists no `files`.")
    for name in files:
        path = manifest.file(name)
        if not is_file(path):
            raise _missing_file(manifest, split, path)
        try:
            if kind is SourceKind.parquet:
                yield from parquet_rows(path)
            elif kind is SourceKind.llava or path.name.lower().endswith((".json", ".json.gz")):
                yield from _json_rows(path)
            elif separator(path):
                yield from text_rows(path, manifest.source.columns | manifest.split(split).columns)
            else:
                yield from (row for _, row in json_lines(path))
        except UserError:
            raise
        except Exception as error:  # pyarrow raises its own errors and any of Python's
            raise UserError(f"{path}: not readable as {kind}: {printable(reason(error))}.") from error


def _missing_file(manifest: Manifest, split: str, path: Path) -> UserError:
    state = "is no ordinary file" if os.path.lexists(path) else "does not exist"
    message = f"{manifest.path}: file {path} of split '{split}' {state}."
    if manifest.source and manifest.is_public:
        folder = manifest.source.root.removeprefix("downloads:").partition("/")[0]
        command = re.search(r"forgetbench data build \w+", manifest.notes)
        instruction = f"Make it with `{command[0]}`" if command else f"Download it from {manifest.homepage}"
        message += (
            f"\n{instruction}; docs/data.md shows the layout. "
            f"If it is on this machine, set {DOWNLOADS} to the folder that holds {folder}."
        )
    return UserError(message)


def _references(manifest: Manifest, split: str) -> Callable[[Row], Row]:
    """A function that sets an item's `answer` to all answers in the split's references file.

    Two public layouts are known: COCO's captions, {images: [{id, file_name}], annotations: [{image_id, caption}]}, and
    TextVQA's answers, {data: [{question_id, answers}]}. Without a references file, items stay unchanged.
    """
    name = manifest.split(split).references
    if name is None:
        return lambda row: row
    path = manifest.file(name)
    if not is_file(path):
        raise _missing_file(manifest, split, path)
    text = read_text(path)
    try:
        content = nan_to_none(parsed_json(text))
        by_picture = "annotations" in content
        accepted = _captions(content) if by_picture else _answers(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: neither COCO's captions nor TextVQA's answers ({error!r}).") from error

    def with_references(row: Row) -> Row:
        key = PurePath(str(row.get("image"))).name if by_picture else str(row.get("id"))
        if key not in accepted:
            raise UserError(f"{path}: nothing on '{key}', an item of split '{split}' of {manifest.path}.")
        return row | {"answer": accepted[key]}

    return with_references


def _captions(content: Row) -> dict[str, list[str]]:
    names = {image["id"]: PurePath(image["file_name"]).name for image in content["images"]}
    captions = defaultdict[str, list[str]](list)
    for annotation in content["annotations"]:
        captions[names[annotation["image_id"]]].append(annotation["caption"])
    return dict(captions)


def _answers(content: Row) -> dict[str, list[str]]:
    # Empty answers go last, because the first answer is trained on.
    return {
        str(record["question_id"]): sorted(record["answers"], key=lambda text: not text.strip())
        for record in content["data"]
    }


def _json_rows(path: Path) -> Iterator[Row]:
    with opened(path) as file:
        records = parsed_json(decoded(file.read(), path))
    if not isinstance(records, list):
        raise ValueError("a list of records is expected")
    if not all(isinstance(record, dict) for record in records):
        raise ValueError("each record must be an object {...}")
    yield from records
