"""Rows in CSV, TSV, Parquet and Arrow: layouts, encodings, columns of every type, damaged files."""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tools.hostile.case import Case, Ends, Place
from tools.hostile.datasets import READ, png, set_case

_HEADER = "question,answer\n"
_PARQUET = {"source": {"root": "..", "kind": "parquet"}, "splits": {"train": {"files": ["t.parquet"]}}}
_BEYOND: dict[str, pa.Array] = {
    "a date beyond Python's years": pa.array([2**31 - 1], pa.date32()),
    "a timestamp beyond Python's years": pa.array([2**60], pa.timestamp("ms")),
    "an unknown zone": pa.array([1], pa.timestamp("s", "Mars/Olympus")),
}
_LETTER = {"answer": "letter", "prompt": "{question}\n{options}"}
_HUB = {"source": {"kind": "hub", "hub_id": "../set"}, "splits": {"train": {"hub_split": "train"}}}


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for name in ("csv", "tsv"):
        fields = {"splits": {"train": {"files": [f"t.{name}"]}}}
        mark = "," if name == "csv" else "\t"
        for what, content in _TEXTS.items():
            shown = content.replace(",", mark) if isinstance(content, str) else content.replace(b",", mark.encode())
            if name == "csv" or what in _ALSO_AS_TSV:
                yield set_case(f"{name} {what}", fields, {f"t.{name}": shown}, says=[f"t.{name}"])
        for what, content in _EMPTY.items():
            yield set_case(f"{name} {what}", fields, {f"t.{name}": content}, says=["mine.yaml"])
    csv = {"splits": {"train": {"files": ["t.csv"]}}}
    for what, content in _RIGHT_TEXTS.items():
        yield set_case(f"csv {what}", csv, {"t.csv": content}, Ends.works)
    for what, content in _ODD_CELLS.items():
        yield set_case(f"csv {what}", {**csv, **_LETTER}, {"t.csv": content}, says=["mine.yaml", "item 0"])
    for what, write in _LONG.items():
        yield set_case(f"csv {what}", csv, write, says=["t.csv"])
    yield from _parquets()
    yield from _choices()


def _parquets() -> Iterator[Case]:
    for what, make in _FILES.items():
        yield set_case(f"parquet {what}", _PARQUET, {"t.parquet": make()}, says=["t.parquet"])
    for what, values in _BEYOND.items():
        files = {"t.parquet": _parquet({"question": ["a"], "answer": ["b"], "odd": values})}
        yield set_case(f"parquet with {what}", _PARQUET, files, says=["t.parquet", "'odd'"])
    repeated = _parquet({"id": [b"a", b"a"], "question": ["a", "a"], "answer": ["b", "b"]})
    yield set_case("parquet with ids that repeat", _PARQUET, {"t.parquet": repeated}, says=["unique"], command=READ)
    for what, columns in _COLUMNS.items():
        yield set_case(f"parquet {what}", _PARQUET, {"t.parquet": _parquet(columns)}, says=["mine.yaml", "item 0"])
    for what, columns in _RIGHT_COLUMNS.items():
        yield set_case(f"parquet {what}", _PARQUET, {"t.parquet": _parquet(columns)}, Ends.works)


def _choices() -> Iterator[Case]:
    for what, columns in _CHOICES.items():
        fields = {**_PARQUET, **_LETTER}
        yield set_case(f"parquet {what}", fields, {"t.parquet": _parquet(columns)}, says=["mine.yaml", "item 0"])
    for what, columns in _RIGHT_CHOICES.items():
        yield set_case(f"parquet {what}", {**_PARQUET, **_LETTER}, {"t.parquet": _parquet(columns)}, Ends.works)
    for what, files in _SETS.items():
        yield set_case(f"local set {what}", _HUB, dict(files), says=["mine.yaml"])
    for what, files in _RIGHT_SETS.items():
        yield set_case(f"local set {what}", _HUB, dict(files), Ends.works)
    yield set_case("local set is a file", _HUB, {"set": "x"}, Ends.works)


_ALSO_AS_TSV = ("with a row of too few cells", "with an open quote", "in utf-16", "of random bytes")
_TEXTS: dict[str, str | bytes] = {
    "with a row of too few cells": _HEADER + "only\n",
    "with a row of too many cells": _HEADER + "a,b,c\n",
    "with an open quote": _HEADER + '"never closed,x\n',
    "with a quote inside": _HEADER + '"a" b,x\n',
    "in utf-16": (_HEADER + "a,b\n").encode("utf-16"),
    "in utf-32": (_HEADER + "a,b\n").encode("utf-32"),
    "in latin-1": (_HEADER + "café,x\n").encode("latin-1"),
    "of random bytes": bytes(range(256)) * 8,
    "with a column twice": "question,question,answer\na,b,c\n",
    "with columns without names": ",,\na,b,c\n",
    "with semicolons": "question;answer\na;b\n",
    "gzipped without the name": gzip.compress((_HEADER + "a,b\n").encode()),
    "of html": "<html>\n<body>a,b,c</body>\n",
    "with half a million columns": ",".join(f"c{k}" for k in range(500_000)) + "\n" + "," * 499_999 + "\n",
}
_LONG = {
    "with a cell of 300 MiB": lambda place: _repeated(place, b'"', b"x" * 2**20, 300),
    "with a cell that never ends": lambda place: _repeated(place, b'"', (b"x" * 8191 + b"\n") * 128, 300),
    "with a header of 300 MiB": lambda place: _repeated(place, b"", b"x" * 2**20, 300),
}


def _repeated(place: Place, start: bytes, block: bytes, times: int) -> None:
    with place.write("t.csv", (_HEADER.encode() if start else b"") + start).open("ab") as file:
        for _ in range(times):
            file.write(block)


_EMPTY = {"of nothing": "", "of blanks": "\n\n\n", "of a header alone": "question\n"}
_RIGHT_TEXTS: dict[str, str | bytes] = {
    "with line ends of Windows": (_HEADER + "a,b\n").replace("\n", "\r\n"),
    "with line ends of the old Macintosh": (_HEADER + "a,b\n").replace("\n", "\r"),
    "with a byte order mark": b"\xef\xbb\xbf" + (_HEADER + "a,b\n").encode(),
    "with blank lines": _HEADER + "\n\na,b\n\n",
    "with line breaks in quotes": _HEADER + '"a\nb",c\n',
    "with a formula": _HEADER + '"=HYPERLINK(""x"")",=1+1\n',
    "with a cell that looks like a list": _HEADER + '"[1, 2",x\n',
    "with an answer of nested brackets": _HEADER + 'a,"' + "[" * 5000 + '"\n',
    "with an answer that is Python": _HEADER + "a,\"[__import__('os').getcwd()]\"\n",
}
_OPTIONS = "question,options,answer\n"
_ODD_CELLS = {
    "whose question holds NUL": _OPTIONS + "a\0b,\"['cat', 'dog']\",cat\n",
    "whose options are words": _OPTIONS + 'a,"cat, dog",cat\n',
    "whose options are JSON of numbers and null": _OPTIONS + 'a,"[1, null]",1\n',
    "whose options are a mapping": _OPTIONS + "a,\"{'a': 1}\",1\n",
    "whose options are brackets 100000 deep": _OPTIONS + f'a,"{"[" * 50_000}{"]" * 50_000}",1\n',
    "whose options are a call": _OPTIONS + 'a,"[open(1), 2]",1\n',
    "whose options are a huge power": _OPTIONS + 'a,"[9**9**9**9, 2]",1\n',
    "whose options are sums without end": _OPTIONS + f'a,"[{"+".join(["1"] * 20_000)}, 2]",1\n',
    "whose options are cut": _OPTIONS + "a,\"['cat', 'do\",1\n",
    "whose options are empty": _OPTIONS + "a,,1\n",
}


def _parquet(columns: dict[str, Any], **how: Any) -> bytes:
    held = io.BytesIO()
    arrays = {
        name: column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column)
        for name, column in columns.items()
    }
    pq.write_table(pa.table(arrays), held, **how)
    return held.getvalue()


def _text_columns() -> dict[str, Any]:
    return {"question": ["a"], "answer": ["b"]}


def _damaged(place: int, change: bytes) -> bytes:
    content = bytearray(_parquet({"question": ["a" * 100] * 50, "answer": ["b"] * 50}))
    content[place : place + len(change)] = change
    return bytes(content)


def _huge_count() -> bytes:
    """A footer that says 2^62 rows, found by its encoded number of rows and groups."""
    content = _parquet({"question": ["a"] * 300, "answer": ["b"] * 300})
    return content.replace(b"\x16\xd8\x04", b"\x16" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f", 1)


def _duplicates() -> bytes:
    held = io.BytesIO()
    table = pa.Table.from_arrays(
        [pa.array(["a"]), pa.array(["c"]), pa.array(["b"])], ["question", "question", "answer"]
    )
    pq.write_table(table, held)
    return held.getvalue()


_FILES = {
    "of nothing": lambda: b"",
    "of four bytes": lambda: b"PAR1",
    "of marks alone": lambda: b"PAR1" + b"\0" * 8 + b"PAR1",
    "cut in half": lambda: (content := _parquet(_text_columns()))[: len(content) // 2],
    "without its last byte": lambda: _parquet(_text_columns())[:-1],
    "with a footer of 4 GiB": lambda: _parquet(_text_columns())[:-8] + b"\xff\xff\xff\xff" + b"PAR1",
    "with a footer of zeros": lambda: b"PAR1" + b"\0" * 100 + b"\x64\0\0\0" + b"PAR1",
    "with a page of garbage": lambda: _damaged(4, b"\xff" * 40),
    "with a page of zeros": lambda: _damaged(4, b"\0" * 60),
    "that says 2^62 rows": _huge_count,
    "that is CSV": lambda: b"question,answer\na,b\n",
    "that is JSON": lambda: b'{"question": "a"}\n',
    "that is a ZIP": lambda: b"PK\x03\x04" + b"\0" * 60,
    "that is encrypted": lambda: b"PARE" + b"\0" * 60 + b"PARE",
    "with a column twice": _duplicates,
}
_NOW = datetime.datetime(2020, 1, 2, 3, 4, 5)
_COLUMNS: dict[str, dict[str, Any]] = {
    "with no columns of ours": {"a": [1]},
    "with answers of null": {"question": ["a"], "answer": pa.nulls(1)},
    "with answers of dates": {"question": ["a"], "answer": [datetime.date(2020, 1, 1)]},
    "with answers of timestamps": {"question": ["a"], "answer": [_NOW]},
    "with answers of times": {"question": ["a"], "answer": [_NOW.time()]},
    "with answers of durations": {"question": ["a"], "answer": [datetime.timedelta(days=1)]},
    "with answers of binary": {"question": ["a"], "answer": [b"\xff\xfe"]},
    "with answers of structs": {"question": ["a"], "answer": [{"text": "b"}]},
    "with answers of maps": {"question": ["a"], "answer": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))},
    "with answers of NaN": {"question": ["a"], "answer": [float("nan")]},
    "with answers of empty lists": {"question": ["a"], "answer": pa.array([[]], pa.list_(pa.string()))},
    "with answers of a list of structs": {"question": ["a"], "answer": [[{"text": "b"}]]},
    "with pictures of numbers": {"question": ["a"], "answer": ["b"], "image": [3]},
    "with pictures of structs of numbers": {"question": ["a"], "answer": ["b"], "image": [{"bytes": 3}]},
    "with pictures of maps": {
        "question": ["a"],
        "answer": ["b"],
        "image": pa.array([[("bytes", b"x")]], pa.map_(pa.string(), pa.binary())),
    },
    "with pictures of dates": {"question": ["a"], "answer": ["b"], "image": [_NOW]},
    "with pictures above the folder": {"question": ["a"], "answer": ["b"], "image": ["../../x.png"]},
    "with conversations of numbers": {"messages": [[1, 2]]},
    "with conversations of structs of numbers": {"messages": [[{"role": 1, "content": 2}]]},
    "with questions of binary": {"question": [b"\xff"], "answer": ["b"]},
}
_RIGHT_COLUMNS: dict[str, dict[str, Any]] = {
    "with answers of decimals": {"question": ["a"], "answer": [decimal.Decimal("1.50")]},
    "with answers of words as a dictionary": {"question": ["a"], "answer": pa.array(["b"]).dictionary_encode()},
    "with answers of large texts": {"question": ["a"], "answer": pa.array(["b"], pa.large_string())},
    "with answers of small numbers": {"question": ["a"], "answer": pa.array([3], pa.uint8())},
    "with answers of huge numbers": {"question": ["a"], "answer": pa.array([2**64 - 1], pa.uint64())},
    "with answers of truths": {"question": ["a"], "answer": [True]},
    "with answers of fixed lists": {"question": ["a"], "answer": pa.array([["b", "c"]], pa.list_(pa.string(), 2))},
    "with other columns of every kind": {
        **_text_columns(),
        "date": [datetime.date(2020, 1, 1)],
        "stamp": pa.array([_NOW], pa.timestamp("ns", "UTC")),
        "zone": pa.array([_NOW], pa.timestamp("us", "Europe/Berlin")),
        "month": pa.array([datetime.timedelta(days=3)]),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        "fixed": pa.array([b"ab"], pa.binary(2)),
        "nothing": pa.nulls(1),
        "half": pa.array([1.5], pa.float32()),
        "decimal": [decimal.Decimal("1e-30")],
        "deep": pa.array([[[[1]]]]),
    },
    "with nanoseconds": {**_text_columns(), "t": pa.array([1], pa.timestamp("ns"))},
    "with 3000 columns": {**_text_columns(), **{f"c{k}": [k] for k in range(3000)}},
    "with names of 5000 letters": {**_text_columns(), "n" * 5000: [1]},
    "with pictures as bytes": {**_text_columns(), "image": [png()]},
    "with pictures as a dictionary of bytes": {**_text_columns(), "image": pa.array([png()]).dictionary_encode()},
    "with pictures as large bytes": {**_text_columns(), "image": pa.array([png()], pa.large_binary())},
    "with pictures as the Hub's structs": {**_text_columns(), "image": [{"bytes": png(), "path": None}]},
    "with pictures that are null": {**_text_columns(), "image": pa.array([None], pa.binary())},
}
_CHOICES: dict[str, dict[str, Any]] = {
    "with options of one text": {"question": ["a"], "options": ["cat, dog"], "answer": ["cat"]},
    "with options of bytes": {"question": ["a"], "options": [[b"cat", b"dog"]], "answer": ["cat"]},
    "with options of structs": {"question": ["a"], "options": [[{"t": "cat"}, {"t": "dog"}]], "answer": [0]},
    "with options of null": {"question": ["a"], "options": [[None, "dog"]], "answer": ["dog"]},
    "with answers that are fractions": {"question": ["a"], "options": [["cat", "dog"]], "answer": [0.5]},
    "with answers that are dates": {"question": ["a"], "options": [["cat", "dog"]], "answer": [_NOW]},
}
_RIGHT_CHOICES: dict[str, dict[str, Any]] = {
    "with answers that are floats": {"question": ["a"], "options": [["cat", "dog"]], "answer": [1.0]},
    "with answers that are decimals": {
        "question": ["a"],
        "options": [["cat", "dog"]],
        "answer": [decimal.Decimal(1)],
    },
    "with options of dates": {
        "question": ["a"],
        "options": [[datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)]],
        "answer": [datetime.date(2020, 1, 1)],
    },
    "with options of decimals": {
        "question": ["a"],
        "options": [[decimal.Decimal("1.0"), decimal.Decimal("2.0")]],
        "answer": [decimal.Decimal("2.0")],
    },
}
_SETS: dict[str, dict[str, str | bytes]] = {
    "is empty": {"set/README.md": ""},
    "has a broken table": {"set/train.parquet": b"PAR1 no"},
    "has a broken card": {"set/README.md": "---\nconfigs: [\n---\n", "set/train.parquet": _parquet(_text_columns())},
    "has a card of a list": {"set/README.md": "---\n[1, 2]\n---\n", "set/train.parquet": _parquet(_text_columns())},
    "has a script": {"set/set.py": "import os\nos.environ['X'] = 'x'\n"},
    "has rows of different columns": {"set/train.jsonl": '{"a": 1}\n{"b": {"c": 2}}\n{"a": "x"}\n'},
    "has lines of broken JSON": {"set/train.jsonl": '{"question": \n'},
    "has another split": {"set/test.parquet": _parquet(_text_columns())},
    "has a broken gzip": {"set/train.jsonl.gz": b"\x1f\x8b\x08 broken"},
    "has columns of other names": {"set/train.parquet": _parquet({"a": ["b"]})},
}
_RIGHT_SETS: dict[str, dict[str, str | bytes]] = {
    "of Parquet": {"set/train.parquet": _parquet(_text_columns())},
    "of JSON lines": {"set/train.jsonl": '{"question": "a", "answer": "b"}\n'},
}
