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
from forgetbench.data.item_texts import printable, without_absent
from forgetbench.data.manifest import DOWNLOADS, Manifest, SourceKind
from forgetbench.data.tables import parquet_rows
from forgetbench.data.text_tables import separator, text_rows


def chosen_rows(
    manifest: Manifest, split: str, limit: int | None, observe: Callable[[Row], None] = lambda row: None
) -> Iterable[tuple[int, Row]]:
    """The rows of a split that are wanted, with their places in it.

    With a limit, those whose places have the smallest hashes: the same ones every time, spread over the whole split,
    and with a larger limit those of a smaller one.

    Args:
        manifest: a manifest with a source.
        split: name of one of its splits.
        limit: only so many.
        observe: is shown every row of the split, wanted or not.
    """
    described, source = manifest.split(split), manifest.source
    found = _shown(_rows(manifest, split), observe)
    limits = [one for one in (limit, described.limit) if one is not None]
    if limits and described.n is not None and source and source.streaming:
        return _known(manifest, split, found, min(limits), described.n)
    return _drawn(found, min(limits, default=None))


def _shown(found: Iterator[Row], observe: Callable[[Row], None]) -> Iterator[Row]:
    for row in found:
        observe(row)
        yield row


def _known(manifest: Manifest, split: str, found: Iterator[Row], limit: int, n: int) -> Iterator[tuple[int, Row]]:
    """As `_drawn` of n rows, which need not be held until the last one was seen."""
    wanted, seen = set(heapq.nsmallest(limit, range(n), key=_rank)), 0
    for place, row in enumerate(found):
        seen += 1
        if place in wanted:
            yield place, row
    if seen != n:
        raise UserError(
            f"{manifest.path}: split '{split}' has {seen} items, not the {n} that were drawn from; write n: {seen}."
        )


def _rank(place: int) -> bytes:
    return hashlib.sha256(str(place).encode()).digest()


def draw_order(places: Iterable[int]) -> list[int]:
    """Places of rows in the order in which growing limits draw them."""
    return sorted(places, key=_rank)


def _drawn(found: Iterator[Row], limit: int | None) -> Iterable[tuple[int, Row]]:
    """The rows with their places in the file; with a limit, those whose places have the smallest hashes."""
    if limit is None:
        return enumerate(found)
    ranked = heapq.nsmallest(limit, enumerate(found), key=lambda one: _rank(one[0]))
    return sorted(ranked, key=lambda one: one[0])


def _rows(manifest: Manifest, split: str) -> Iterator[Row]:
    """The items of one split as they are stored, mapped columns under our names too.

    Raises:
        UserError: a file is missing or not readable, or lacks an item's references; names the file and, where there
            are lines, the line.
    """
    source = manifest.source
    assert source is not None
    found = _hub_rows(manifest, split) if source.kind is SourceKind.hub else _file_rows(manifest, split)
    found = _mapped(manifest, split, map(without_absent, found))
    if source.adapter:
        found = _adapted(manifest, split, found)
    yield from map(_references(manifest, split), _numbered(found))


def _numbered(found: Iterator[Row]) -> Iterator[Row]:
    """Conversations with an id each: public files repeat theirs (one per picture, not per record) or have none."""
    seen = Counter[str]()
    for place, row in enumerate(found):
        if not is_conversation(row):
            yield row
            continue
        name = str(next((row[key] for key in ("id", "question_id") if row.get(key) is not None), place))
        seen[name] += 1
        yield row | {"id": f"{name}#{seen[name]}" if seen[name] > 1 else name}


def _mapped(manifest: Manifest, split: str, found: Iterator[Row]) -> Iterator[Row]:
    assert manifest.source is not None
    columns = manifest.source.columns | manifest.split(split).columns
    unseen = set(columns.values())
    for row in found:
        unseen = unseen and unseen.difference(row)
        yield row | {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}
    if unseen:
        names = ", ".join(sorted(unseen))
        raise UserError(f"{manifest.path}: no item of split '{split}' has the column {names} (`source.columns`).")


def _hub_rows(manifest: Manifest, split: str) -> Iterator[Row]:
    """The split's rows of each configuration in turn."""
    source = manifest.source
    assert source is not None
    for config in source.hub_configs:
        yield from hub_rows(replace(manifest, source=replace(source, hub_config=config)), split)


def _adapted(manifest: Manifest, split: str, found: Iterator[Row]) -> Iterator[Row]:
    assert manifest.source is not None
    name = str(manifest.source.adapter)
    seen = count()
    try:
        yield from ADAPTERS[name](row for row, _ in zip(found, seen, strict=False))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        detail = f"field {error} is missing" if isinstance(error, KeyError) else error
        raise UserError(
            f"{manifest.path}: row {next(seen) - 1} of split '{split}' is not laid out as the adapter '{name}' "
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
            raise _absent(manifest, split, path)
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


def _absent(manifest: Manifest, split: str, path: Path) -> UserError:
    state = "is no ordinary file" if os.path.lexists(path) else "does not exist"
    message = f"{manifest.path}: file {path} of split '{split}' {state}."
    if manifest.source and manifest.is_public:
        folder = manifest.source.root.removeprefix("downloads:").partition("/")[0]
        built = re.search(r"forgetbench data build \w+", manifest.notes)
        step = f"Make it with `{built[0]}`" if built else f"Download it from {manifest.homepage}"
        message += (
            f"\n{step}; docs/data.md shows the layout. "
            f"If it is on this machine, set {DOWNLOADS} to the folder that holds {folder}."
        )
    return UserError(message)


def _references(manifest: Manifest, split: str) -> Callable[[Row], Row]:
    """What puts everything that the split's file of references accepts into an item's `answer`.

    Two public layouts are known: COCO's captions, {images: [{id, file_name}], annotations: [{image_id, caption}]}, and
    TextVQA's answers, {data: [{question_id, answers}]}. Without such a file, items stay as they are.
    """
    name = manifest.split(split).references
    if name is None:
        return lambda row: row
    path = manifest.file(name)
    if not is_file(path):
        raise _absent(manifest, split, path)
    text = read_text(path)
    try:
        held = without_absent(parsed_json(text))
        by_picture = "annotations" in held
        accepted = _captions(held) if by_picture else _answers(held)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: neither COCO's captions nor TextVQA's answers ({error!r}).") from error

    def added(row: Row) -> Row:
        key = PurePath(str(row.get("image"))).name if by_picture else str(row.get("id"))
        if key not in accepted:
            raise UserError(f"{path}: nothing on '{key}', an item of split '{split}' of {manifest.path}.")
        return row | {"answer": accepted[key]}

    return added


def _captions(held: Row) -> dict[str, list[str]]:
    names = {image["id"]: PurePath(image["file_name"]).name for image in held["images"]}
    found = defaultdict[str, list[str]](list)
    for one in held["annotations"]:
        found[names[one["image_id"]]].append(one["caption"])
    return dict(found)


def _answers(held: Row) -> dict[str, list[str]]:
    # An annotator who gave no answer agrees with none; the first is the example of a right one.
    return {str(one["question_id"]): sorted(one["answers"], key=lambda text: not text.strip()) for one in held["data"]}


def _json_rows(path: Path) -> Iterator[Row]:
    with opened(path) as file:
        records = parsed_json(decoded(file.read(), path))
    if not isinstance(records, list):
        raise ValueError("a list of records is expected")
    if not all(isinstance(record, dict) for record in records):
        raise ValueError("each record must be an object {...}")
    yield from records
