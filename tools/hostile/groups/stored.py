"""What runs left behind and was damaged since: tables, cells, journals, cached rows."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tools.hostile.case import Case, Ends, Place

_RUN = "outputs/lora"
_SHOW = ("show", _RUN, "--json")
_COMPARE = ("compare", _RUN, "--json")
_REPORT = ("report", _RUN)
_SCORE = ("score", f"run={_RUN}", "matrix=quick", "matrix.limit=4", "matrix.steps=[2]")
_EVALUATE = ("eval-matrix", *_SCORE[1:], "threads=1", "matrix.representation.enabled=false")


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for name, command in (("scores.csv", _SHOW), ("matrix.csv", _SHOW), ("train.csv", _REPORT)):
        for what, change in _TABLES.items():
            if name == "scores.csv" or what in _OF_EACH:
                yield Case(f"{name} is {what}", command, _changed(name, change), says=(name,))
        for what, change in _ODD_TABLES.items() if command is _SHOW else ():
            yield Case(f"{name} is {what}", command, _changed(name, change), Ends.works)
    for name in ("summary.csv", "representation.csv"):
        for what in _OF_EACH[:3]:
            yield Case(f"{name} is {what}", _REPORT, _changed(name, _TABLES[what]), says=(name,))
    yield from _values()
    yield from _stores()


def _values() -> Iterator[Case]:
    for column, values in _VALUES.items():
        for what, value in values.items():
            change = _with_value(column, value)
            yield Case(f"scores.csv has {what}", _COMPARE, _changed("scores.csv", change), says=_says(column))
    for what, value in _ODD_VALUES.items():
        yield Case(f"scores.csv has {what}", _SHOW, _changed("scores.csv", _with_value(*value)), Ends.works)
    for name in ("scores.csv", "matrix.csv", "train.csv"):
        for what, make in _places(name).items():
            yield Case(f"{name} is {what}", _REPORT if name == "train.csv" else _SHOW, make, says=(name,))
    for what, content in _LOGS.items():
        yield Case(
            f"train.csv has {what}", _REPORT, _changed("train.csv", lambda _, new=content: new), says=("train.csv",)
        )


def _says(column: str) -> tuple[str, ...]:
    return () if column in ("cell", "metric") else ("scores.csv",)


def _stores() -> Iterator[Case]:
    for what, damage in _CELLS.items():
        yield Case(f"a cell is {what}, compared", _COMPARE, _cells(damage), says=(".parquet",))
    for what in ("nothing", "cut", "of other columns", "with facts that are null"):
        yield Case(f"a cell is {what}, scored", _SCORE, _cells(_CELLS[what]), Ends.either, ("damaged",))
    for what, make in _STORES.items():
        yield Case(f"the cells are {what}", _COMPARE, make)
    for what, content in _JOURNALS.items():
        yield Case(f"a journal is {what}", _EVALUATE, _journal(content), Ends.works)
    for what, content in _CACHES.items():
        yield Case(f"a cached set's meta.json is {what}", _EVALUATE, _cache(content), Ends.works)
    for what, make in _SWEEPS.items():
        yield Case(what, ("show", "outputs", "--json"), make, Ends.either)


def _copied(place: Place) -> Path:
    """The scored run and its cells."""
    place.copy("outputs/.cells")
    return place.copy(_RUN)


Change = Callable[[bytes], bytes]


def _changed(name: str, change: Change) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        path = _copied(place) / name
        path.write_bytes(change(path.read_bytes()))

    return make


def _rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def _table(rows: list[dict[str, Any]]) -> bytes:
    held = io.StringIO()
    writer = csv.DictWriter(held, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return held.getvalue().encode()


def _with_value(column: str, value: str) -> Change:
    return lambda content: _table([{**row, column: value} for row in _rows(content)])


def _without_column(content: bytes) -> bytes:
    first = next(iter(_rows(content)[0]))
    return _table([{key: value for key, value in row.items() if key != first} for row in _rows(content)])


_OF_EACH = ("of another table", "of random bytes", "in utf-16", "without its first column", "of a header alone twice")
_TABLES: dict[str, Change] = {
    "of another table": lambda _: b"a,b\n1,2\n",
    "of random bytes": lambda _: bytes(range(256)) * 20,
    "in utf-16": lambda content: content.decode().encode("utf-16"),
    "without its first column": _without_column,
    "of a header alone twice": lambda content: content.split(b"\n")[0] + b"\n" + content.split(b"\n")[0] + b"\n",
    "of NUL bytes": lambda content: b"\0" * len(content),
    "of half NUL bytes": lambda content: content[: len(content) // 2] + b"\0" * 1000,
    "cut inside a row": lambda content: content[: len(content) * 2 // 3],
    "of rows with more cells": lambda content: content + b"x," * 100 + b"\n",
    "of HTML": lambda _: b"<html><body>404</body></html>\n",
    "of Parquet": lambda _: b"PAR1\0\0\0\0PAR1",
    "of an open quote": lambda content: content + b'"never closed\n' * 3,
    "of semicolons": lambda content: content.replace(b",", b";"),
    "with merge conflicts": lambda content: content + b"<<<<<<< HEAD\n=======\n>>>>>>> other\n",
}
_ODD_TABLES: dict[str, Change] = {
    "with line ends of Windows": lambda content: content.replace(b"\n", b"\r\n"),
    "with a byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "with blank lines": lambda content: content + b"\n\n",
}
_VALUES: dict[str, dict[str, str]] = {
    "step": {"a step that is a word": "last", "a step that is a fraction": "1.5", "a huge step": "9" * 40},
    "metric": {"an unknown metric": "bleu"},
    "text_axis": {"an unknown axis": "sideways"},
    "image_axis": {"an axis that is empty": ""},
    "cell": {"a cell above its folder": "../../secret", "a cell of 5000 letters": "n" * 5000, "a cell of NUL": "a"},
    "stage": {"a stage that is a word": "first"},
    "decoding": {"a decoding that is empty": ""},
    "value": {"values that are words": "good", "values that are infinite": "inf"},
    "n": {"numbers of items that are words": "many"},
    "seen_in_mix": {"a truth that is a word": "perhaps"},
    "dataset": {"a set that is empty": ""},
}
_ODD_VALUES = {
    "a run of another name": ("run", "other"),
    "a model of 5000 letters": ("model", "m" * 5000),
    "a model of an escape sequence": ("model", "\x1b[31mred"),
    "a model that is markup": ("model", "[bold]m[/bold] [/]"),
    "values that are absent": ("value", ""),
}


def _places(name: str) -> dict[str, Callable[[Place], object]]:
    def folder(place: Place) -> None:
        path = _copied(place) / name
        path.unlink()
        path.mkdir()

    def fifo(place: Place) -> None:
        path = _copied(place) / name
        path.unlink()
        os.mkfifo(path)

    def endless(place: Place) -> None:
        path = _copied(place) / name
        path.unlink()
        path.symlink_to("/dev/zero")

    return {"a folder": folder, "a FIFO": fifo, "a link to an endless device": endless}


_LOGS: dict[str, bytes] = {
    "losses that are words": b"step,stage,loss,lr_language\n1,1,good,0.1\n",
    "steps that are words": b"step,stage,loss,lr_language\none,1,1.0,0.1\n",
    "a stage of none": b"step,stage,loss\n1,,1.0\n2,1,1.0\n",
    "rates that are words": b"step,stage,loss,lr_language,samples_per_s\n1,1,1.0,high,fast\n",
}
Damage = Callable[[Path], object]


def _cells(damage: Damage) -> Callable[[Place], object]:
    """Damage every cell."""

    def make(place: Place) -> None:
        _copied(place)
        for path in sorted((place.folder / "outputs/.cells").glob("*.parquet")):
            damage(path)

    return make


def _with_facts(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(path: Path) -> None:
        table = pq.read_table(path)
        facts = change(json.loads(table.schema.metadata[b"facts"]))
        pq.write_table(table.replace_schema_metadata({"facts": json.dumps(facts)}), path)

    return damage


def _with_column(name: str, value: pa.Array | None) -> Damage:
    def damage(path: Path) -> None:
        table = pq.read_table(path)
        place = table.column_names.index(name)
        if value is None:
            table = table.drop_columns([name])
        else:
            table = table.set_column(place, name, pa.concat_arrays([value] * len(table)))
        pq.write_table(table, path)

    return damage


def _repointed(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


_CELLS: dict[str, Damage] = {
    "absent": lambda path: path.unlink(),
    "nothing": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:500]),
    "zeros": lambda path: path.write_bytes(b"\0" * 2000),
    "flipped in one bit": lambda path: path.write_bytes(
        (content := bytearray(path.read_bytes())).__setitem__(300, content[300] ^ 4) or bytes(content)
    ),
    "another's": lambda path: path.write_bytes(sorted(path.parent.glob("*.parquet"))[-1].read_bytes() + b""),
    "of other columns": lambda path: pq.write_table(pa.table({"a": [1]}), path),
    "without facts": lambda path: pq.write_table(pq.read_table(path).replace_schema_metadata(None), path),
    "with facts that are null": _with_facts(lambda _: None),
    "with facts that are a list": _with_facts(lambda _: [1]),
    "with facts of another cell": _with_facts(lambda facts: {**facts, "cell": "x"}),
    "with marks that are numbers": _with_facts(lambda facts: {**facts, "marks": 7, "rules": "old"}),
    "with marks that are one text each": _with_facts(lambda facts: {**facts, "marks": [["a"]], "rules": "old"}),
    "without seconds": _with_facts(lambda facts: {k: v for k, v in facts.items() if k != "seconds"}),
    "with items beyond the context that are a list": _with_facts(lambda facts: {**facts, "beyond_context": [1]}),
    "with an answer changed": _with_column("parsed", pa.array(["A"])),
    "with scores that are texts": _with_column("score", pa.array(["high"])),
    "without a column": _with_column("correct", None),
    "a link to itself": lambda path: _repointed(path, path.name),
    "a link to an endless device": lambda path: _repointed(path, "/dev/zero"),
    "a FIFO": _fifo,
    "a folder": _folder,
}


def _store_file(place: Place) -> None:
    place.copy(_RUN)
    place.write("outputs/.cells", "x")


def _store_link(place: Place) -> None:
    place.copy(_RUN)
    (place.folder / "outputs/.cells").symlink_to(".cells")


_STORES: dict[str, Callable[[Place], object]] = {
    "absent": lambda place: place.copy(_RUN),
    "a file": _store_file,
    "a link to itself": _store_link,
    "an empty folder": lambda place: (place.copy(_RUN), (place.folder / "outputs/.cells").mkdir()),
}


def _journal(content: bytes) -> Callable[[Place], object]:
    """One cell is gone, and its journal holds something."""

    def make(place: Place) -> None:
        _copied(place)
        place.copy("outputs/.cache")
        path = sorted((place.folder / "outputs/.cells").glob("*.parquet"))[0]
        path.unlink()
        place.write(f"outputs/.cells/{path.stem}.partial/0.jsonl", content)

    return make


def _line(body: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(body).hexdigest()[:16].encode() + b" " + body + b"\n"


_JOURNALS: dict[str, bytes] = {
    "random bytes": bytes(range(256)) * 10,
    "lines of words": b"words\nwords words\n",
    "a sound checksum of no JSON": _line(b"words"),
    "a sound checksum of null": _line(b"null"),
    "a sound checksum of other things": _line(b"[1, 2, 3, 4]"),
    "a sound checksum of a batch of nothing": _line(b'[0, "x", 0.1, []]'),
    "a sound checksum of depth": _line(b"[" * 100_000 + b"]" * 100_000),
}


def _cache(content: bytes) -> Callable[[Place], object]:
    """One cell is gone, and the cached prompts of every set are damaged."""

    def make(place: Place) -> None:
        _copied(place)
        place.copy("outputs/.cache")
        sorted((place.folder / "outputs/.cells").glob("*.parquet"))[0].unlink()
        for path in (place.folder / "outputs/.cache").glob("*/meta.json"):
            path.write_bytes(content)

    return make


_CACHES: dict[str, bytes] = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[1]",
    "random bytes": bytes(range(128, 256)),
    "of another format": b'{"format": 99}',
    "of a format that is a list": b'{"format": [3]}',
    "100000 deep": b"[" * 100_000,
    "without its files": b'{"format": 3}',
}


def _nested_sweep(place: Place) -> None:
    """Runs within runs."""
    for depth in range(4):
        place.copy(_RUN, "outputs/" + "/".join(["lora"] * (depth + 1)) + f"/run{depth}")


_SWEEPS: dict[str, Callable[[Place], object]] = {
    "a sweep of one broken point": lambda place: (_copied(place), place.write("outputs/bad/run.json", "{")),
    "a sweep of a point without tables": lambda place: (_copied(place), place.copy("outputs/plain")),
    "a sweep with files between": lambda place: (_copied(place), place.write("outputs/note.txt", "x")),
    "a sweep with a link to itself": lambda place: (_copied(place), (place.folder / "outputs/loop").symlink_to(".")),
    "a sweep within a sweep": _nested_sweep,
}
