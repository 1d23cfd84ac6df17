"""Rows as JSON lines and JSON: encodings, broken lines, depth, odd values, ids, options, answers and conversations."""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Iterator
from typing import Any

from tools.hostile.case import Case, Ends, Place
from tools.hostile.datasets import CHOICE, ITEM, READ, Fields, Files, lines, set_case

_SPLIT = {"splits": {"train": {"files": ["items.json"]}}}
_LETTER = {"answer": "letter", "prompt": "{question}\n{options}"}


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, content in _HALVES.items():
        yield set_case(f"lines are {what}", {}, {"items.jsonl": content}, says=["item 0"])
    for what, content in _BROKEN_LINES.items():
        yield set_case(f"lines are {what}", {}, {"items.jsonl": content}, says=["items.jsonl"])
    for what, content in _EMPTY.items():
        yield set_case(f"lines are {what}", {}, {"items.jsonl": content}, says=["mine.yaml"])
    for what, content in _ODD_LINES.items():
        yield set_case(f"lines are {what}", {}, {"items.jsonl": content}, Ends.works)
    for what, content in _BROKEN_LISTS.items():
        yield set_case(f"a list is {what}", _SPLIT, {"items.json": content}, says=["items.json"])
    for what, content in _ODD_LISTS.items():
        yield set_case(f"a list is {what}", _SPLIT, {"items.json": content}, Ends.works)
    yield from _items()


def _items() -> Iterator[Case]:
    for what, row in _ROWS.items():
        yield set_case(f"an item whose {what}", {}, {"items.jsonl": lines(row)}, says=["mine.yaml", "item 0"])
    for what, row in _RIGHT_ROWS.items():
        yield set_case(f"an item whose {what}", {}, {"items.jsonl": lines(row)}, Ends.works)
    for what, row in _CHOICES.items():
        yield set_case(f"a choice whose {what}", _LETTER, {"items.jsonl": lines(row)}, says=["mine.yaml", "item 0"])
    for what, row in _RIGHT_CHOICES.items():
        yield set_case(f"a choice whose {what}", _LETTER, {"items.jsonl": lines(row)}, Ends.works)
    yield from _others()


def _others() -> Iterator[Case]:
    for what, row in _TALKS.items():
        yield set_case(f"a conversation whose {what}", {}, {"items.jsonl": lines(row)}, says=["mine.yaml"])
    for what, fields, files in _SPECIAL:
        yield set_case(what, fields, files, says=["mine.yaml"], command=READ)
    for what, content in _REFERENCES.items():
        yield set_case(f"references are {what}", _WITH_REFERENCES, {**_ITEMS, "r.json": content}, says=["r.json"])
    for what, make in _PLACES.items():
        yield set_case(f"the file is {what}", {}, make, says=["items.jsonl"])


def _deep(levels: int, left: str = "[", right: str = "]") -> str:
    return left * levels + right * levels


def _item(**fields: Any) -> dict[str, Any]:
    return {**ITEM, **fields}


def _choice(**fields: Any) -> dict[str, Any]:
    return {**CHOICE, **fields}


_SOUND = lines(ITEM)
_DEEP: Any = "x"
for _ in range(300):
    _DEEP = [_DEEP]
_DEEP_MAPPING: Any = "x"
for _ in range(300):
    _DEEP_MAPPING = {"a": _DEEP_MAPPING}

_BROKEN_LINES: dict[str, str | bytes] = {
    "of an answer 300 deep": lines(_item(answer=_DEEP)),
    "of a note 300 lists deep": lines(_item(note=_DEEP)),
    "of a note 300 mappings deep": lines(_item(note=_DEEP_MAPPING)),
    "null": "null\n",
    "lists": "[1, 2]\n",
    "texts": '"words"\n',
    "numbers": "12\n",
    "plain words": "hello\n",
    "cut short": _SOUND[:-5],
    "two items on a line": json.dumps(ITEM) + json.dumps(ITEM),
    "a list over several lines": json.dumps([ITEM], indent=1),
    "a trailing comma": '{"question": "?", "answer": "x",}\n',
    "single quotes": str(ITEM) + "\n",
    "comments": "// note\n" + _SOUND,
    "utf-16": _SOUND.encode("utf-16"),
    "utf-16 without a mark": _SOUND.encode("utf-16-le"),
    "utf-32": _SOUND.encode("utf-32"),
    "latin-1": lines(ITEM).replace("red", "café").encode("latin-1"),
    "NUL bytes": b"\0" * 4096,
    "an item and NUL bytes": _SOUND.encode() + b"\0" * 100,
    "a raw control character in a text": '{"question": "a\x01b", "answer": "x"}\n',
    "a raw line break in a text": '{"question": "a\nb", "answer": "x"}\n',
    "random bytes": bytes(range(256)) * 16,
    "Parquet": b"PAR1" + b"\0" * 50 + b"PAR1",
    "gzip without the name": gzip.compress(_SOUND.encode()),
    "html": "<!DOCTYPE html>\n<html></html>\n",
    "a Git LFS pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "lists 100000 deep": '{"question": ' + _deep(100_000) + "}\n",
    "mappings 100000 deep": _deep(100_000, '{"a":', "}") + "\n",
    "brackets that are never closed": '{"question": ' + "[" * 500_000,
    "a number of 100000 digits": '{"question": ' + "9" * 100_000 + ', "answer": "x"}\n',
    "an escape that is cut": '{"question": "\\u12", "answer": "x"}\n',
    "bytes that are no utf-8": b'{"question": "\xff\xfe", "answer": "x"}\n',
}
_HALVES: dict[str, str | bytes] = {
    "a surrogate as three bytes": b'{"question": "\xed\xa0\x80", "answer": "x"}\n',
    "a surrogate as an escape": b'{"question": "\\ud800", "answer": "x"}\n',
}
_EMPTY: dict[str, str | bytes] = {
    "nothing": "",
    "blank": " \n\n \n",
    "a byte order mark alone": codecs.BOM_UTF8,
}
_ODD_LINES: dict[str, str | bytes] = {
    "line ends of the old Macintosh": lines(ITEM, ITEM).replace("\n", "\r"),
    "a byte order mark in front": codecs.BOM_UTF8 + _SOUND.encode(),
    "line ends of Windows": _SOUND.replace("\n", "\r\n"),
    "blank lines between": f"\n\n{_SOUND}\n\n{_SOUND}",
    "no line end at the end": _SOUND.rstrip(),
    "an unknown field NaN": '{"question": "?", "answer": "x", "weight": NaN}\n',
    "an unknown field infinite": '{"question": "?", "answer": "x", "weight": -Infinity}\n',
    "an unknown field beyond any float": '{"question": "?", "answer": "x", "weight": 1e999}\n',
    "U+2028 inside": json.dumps(_item(question="a\u2028b\u2029c"), ensure_ascii=False) + "\n",
    "a text of 8 MiB": lines(_item(question="words " * (8 * 2**20 // 6))),
    "5000 unknown fields": lines({**ITEM, **{f"f{k}": k for k in range(5000)}}),
    "a field named by 5000 letters": lines({**ITEM, "k" * 5000: 1}),
    "unicode of every plane": lines(
        _item(question="".join(chr(k) for k in range(0xA0, 0x2FFFF, 97)).encode("utf-8", "ignore").decode())
    ),
    "a field twice": '{"question": "one?", "question": "?", "answer": "x"}\n',
}
_BROKEN_LISTS: dict[str, str | bytes] = {
    "nothing": "",
    "null": "null",
    "a mapping": json.dumps(ITEM),
    "a mapping that holds one": json.dumps({"data": [ITEM]}),
    "a list of lists": "[[1]]",
    "a list of texts": '["a"]',
    "a list with one null": json.dumps([ITEM, None]),
    "cut short": json.dumps([ITEM])[:-3],
    "JSON lines": lines(ITEM, ITEM),
    "utf-16": json.dumps([ITEM]).encode("utf-16"),
    "lists 100000 deep": _deep(100_000),
    "NUL bytes": b"\0" * 100,
    "a trailing comma": "[{},]",
}
_ODD_LISTS: dict[str, str | bytes] = {
    "a byte order mark in front": codecs.BOM_UTF8 + json.dumps([ITEM]).encode(),
    "blanks around": f"\n\n {json.dumps([ITEM])}\n ",
}
_ROWS: dict[str, dict[str, Any]] = {
    "question is absent": {"answer": "red"},
    "answer is absent": {"question": "?"},
    "question is null": _item(question=None),
    "answer is null": _item(answer=None),
    "answer is empty": _item(answer=""),
    "answer is blank": _item(answer=" \n "),
    "answer is a mapping": _item(answer={"text": "red"}),
    "answer is an empty list": _item(answer=[]),
    "answer is a list of lists": _item(answer=[["red"]]),
    "answer is a list with null": _item(answer=["red", None]),
    "answer is NaN": _item(answer=float("nan")),
    "answer holds NUL": _item(answer="a\0"),
    "answer holds half a character": _item(answer="\ud800"),
    "question holds NUL": _item(question="a\0b"),
    "question holds half a character": _item(question="a\udfffb"),
    "id holds a control character": _item(id="a\x1b[31m"),
    "id holds half a character": _item(id="\ud83d"),
    "image is a number": _item(image=3),
    "image is a list of numbers": _item(image=[1, 2]),
    "image is an empty text": _item(image=""),
    "image is true": _item(image=True),
    "image is a mapping of nothing": _item(image={}),
    "image is a mapping of other things": _item(image={"url": "x"}),
    "image has bytes that are a number": _item(image={"bytes": 7}),
    "image has bytes that are numbers above 255": _item(image={"bytes": [1, 999]}),
    "image has bytes that are negative": _item(image={"bytes": [-1]}),
    "image has bytes that are fractions": _item(image={"bytes": [1.5]}),
    "image has bytes that are words": _item(image={"bytes": "words"}),
    "image has a path that is a list": _item(image={"path": ["a"]}),
    "image is an address": _item(image="https://example.org/a.png"),
    "image is broken base64": _item(image="/9j/" + "!" * 400),
    "image is a data URI of text": _item(image="data:text/plain,hello"),
    "image is a data URI without a comma": _item(image="data:image/png;base64"),
    "image is above the folder": _item(image="../../secret.png"),
    "image is absolute": _item(image="/etc/passwd"),
    "image is of 5000 letters": _item(image="n" * 5000),
    "image and images differ": _item(image="a.png", images=["b.png"]),
    "images is a list of null": _item(images=[None]),
    "images is a mapping of lists": _item(images={"a": [1]}),
    "class_option is a text": _item(class_option="one", options=["a", "b"]),
    "options is a text": _item(options="a, b"),
    "options is a mapping": _item(options={"A": "a"}),
}
_RIGHT_ROWS: dict[str, dict[str, Any]] = {
    "answer is a number": _item(answer=12),
    "answer is a huge number": _item(answer=2**70),
    "answer is true": _item(answer=True),
    "answer is a list of texts": _item(answer=["red", "crimson"]),
    "id is a number": _item(id=7),
    "id is a huge number": _item(id=2**64),
    "id is a fraction": _item(id=1.5),
    "id is of 5000 letters": _item(id="n" * 5000),
    "id looks like a path": _item(id="../../x"),
    "id is a list": _item(id=[1, 2]),
    "question has braces": _item(question="{x} {0} {{y}} %s ${HOME}"),
    "question is a number": _item(question=12),
    "question is right to left": _item(question="\u202eevil\u202c"),
    "images is an empty list": _item(images=[]),
    "question is markup": _item(question="[red]bold[/red] [link=x]y[/link]"),
}
_CHOICES: dict[str, dict[str, Any]] = {
    "options are absent": {"question": "?", "answer": "a"},
    "options are null": _choice(options=None),
    "options are empty": _choice(options=[]),
    "options are one": _choice(options=["dog"]),
    "options are a text": _choice(options="cat, dog"),
    "options are a number": _choice(options=3),
    "options hold null": _choice(options=["cat", None]),
    "options hold a mapping": _choice(options=["cat", {"text": "dog"}]),
    "options hold a list": _choice(options=["cat", ["dog"]]),
    "options are the same": _choice(options=["dog", "dog"]),
    "options look the same": _choice(options=["dog", "dog\u200b"]),
    "options are empty texts": _choice(options=["", "dog"]),
    "options are invisible": _choice(options=["\u200b", "dog"]),
    "options are more than letters": _choice(options=[f"o{k}" for k in range(27)], answer=0),
    "options hold half a character": _choice(options=["\ud800", "dog"]),
    "options hold a control character": _choice(options=["a\x1b[31m", "dog"]),
    "answer is a place beyond": _choice(answer=3),
    "answer is negative": _choice(answer=-1),
    "answer is a huge place": _choice(answer=2**70),
    "answer is a huge float": _choice(answer=1e300),
    "answer is a fraction": _choice(answer=1.5),
    "answer is infinite": _choice(answer=float("inf")),
    "answer is true": _choice(answer=True),
    "answer is a list": _choice(answer=["dog"]),
    "answer is a mapping": _choice(answer={"a": 1}),
    "answer is a letter beyond": _choice(answer="Z"),
    "answer is no option": _choice(answer="fish"),
    "answer is 5000 digits": _choice(answer="9" * 5000),
    "answer is digits of another script": _choice(answer="\u0967\u0968\u0969"),
    "answer is a power of ten": _choice(options=["1", "2"], answer="1e999999999"),
}
_RIGHT_CHOICES: dict[str, dict[str, Any]] = {
    "answer is a letter": _choice(answer="b"),
    "answer is a place": _choice(answer=1),
    "answer is a place as float": _choice(answer=1.0),
    "options are numbers": _choice(options=[1, 2.5, 2**70], answer=2.5),
    "options are truths": _choice(options=[True, False], answer="True"),
    "options are huge numbers": _choice(options=[10**400, 1], answer=1),
}


def _turn(role: object, content: object, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


_USER, _REPLY = _turn("user", "Which?"), _turn("assistant", "red")
_TALKS: dict[str, dict[str, Any]] = {
    "turns are a text": {"messages": "hello"},
    "turns are a mapping": {"messages": {"role": "user"}},
    "turns are numbers": {"messages": [1, 2]},
    "turns are lists": {"messages": [["user", "hi"]]},
    "turns are none": {"messages": []},
    "turns are a struct of uneven lists": {"messages": {"role": ["user"], "content": ["a", "b"]}},
    "turn lacks its text": {"messages": [{"role": "user"}, _REPLY]},
    "turn lacks its speaker": {"messages": [{"content": "x"}, _REPLY]},
    "speaker is a list": {"messages": [_turn(["user"], "x"), _REPLY]},
    "speaker is unknown": {"messages": [_turn("critic", "x"), _REPLY]},
    "text is a number": {"messages": [_turn("user", 7), _REPLY]},
    "text is a mapping": {"messages": [_turn("user", {"text": "x"}), _REPLY]},
    "parts are numbers": {"messages": [_turn("user", [1, 2]), _REPLY]},
    "parts are of an unknown type": {"messages": [_turn("user", [{"type": "smell"}]), _REPLY]},
    "parts have a list for a type": {"messages": [_turn("user", [{"type": ["text"]}]), _REPLY]},
    "parts have no text": {"messages": [_turn("user", [{"type": "text"}]), _REPLY]},
    "parts have a number for a text": {"messages": [_turn("user", [{"type": "text", "text": 7}]), _REPLY]},
    "parts have a picture that is a number": {"messages": [_turn("user", [{"type": "image", "image": 7}]), _REPLY]},
    "parts have a place that is huge": {
        "messages": [_turn("user", [{"type": "image", "index": 2**70}]), _REPLY],
    },
    "parts have a place that is negative": {"messages": [_turn("user", [{"type": "image", "index": -5}]), _REPLY]},
    "parts nest": {"messages": [_turn("user", [[{"type": "text", "text": "x"}]]), _REPLY]},
    "weight is a text": {"messages": [_USER, _turn("assistant", "x", weight="one")]},
    "weight is a half": {"messages": [_USER, _turn("assistant", "x", weight=0.5)]},
    "weight is infinite": {"messages": [_USER, _turn("assistant", "x", weight=float("inf"))]},
    "system is a list": {"messages": [_USER, _REPLY], "system": ["x"]},
    "history is a text": {"query": "?", "response": "x", "history": "abc"},
    "history is a number": {"query": "?", "response": "x", "history": 7},
    "history holds triples": {"query": "?", "response": "x", "history": [["a", "b", "c"]]},
    "history holds numbers": {"query": "?", "response": "x", "history": [[1, 2]]},
    "query is a number": {"query": 7, "response": "x"},
    "prompt is a mapping": {"prompt": {"a": 1}, "completion": "x"},
    "tools are given": {"messages": [_USER, _REPLY], "tools": [{"name": "x"}]},
    "last turn is the user's": {"messages": [_USER]},
    "reply holds half a character": {"messages": [_USER, _turn("assistant", "\ud800")]},
}
_COLUMN = {"source": {"root": "..", "columns": {"question": "frage"}}}
_PICTURES = {"image_domains": ["photos"]}
_SPECIAL: list[tuple[str, Fields, Files]] = [
    ("more marks than pictures", _PICTURES, {"items.jsonl": lines(_item(question="<image><image>?", image="a.png"))}),
    (
        "marks numbered beyond",
        _PICTURES,
        {"items.jsonl": lines(_item(question="<image 999999999999>?", image="a.png"))},
    ),
    (
        "marks of 5000 digits",
        _PICTURES,
        {"items.jsonl": lines(_item(question=f"<image {'9' * 5000}>?", image="a.png"))},
    ),
    (
        "a reply that shows a picture",
        _PICTURES,
        {"items.jsonl": lines({"messages": [_USER, _turn("assistant", "<image>")], "images": ["a.png"]})},
    ),
    ("ids that repeat", {}, {"items.jsonl": lines(_item(id=1), _item(id=1))}),
    ("ids that repeat as number and text", {}, {"items.jsonl": lines(_item(id=1), _item(id="1"))}),
    ("a mapped column that is absent", _COLUMN, {"items.jsonl": lines(ITEM)}),
    ("30 items of which none fits", {}, {"items.jsonl": lines(*[{"a": k} for k in range(30)])}),
    (
        "a file of another split is absent",
        {"splits": {"train": {"files": ["items.jsonl", "b.jsonl"]}}},
        {"items.jsonl": lines(ITEM)},
    ),
    ("pictures are promised", {"image_domains": ["photos"]}, {"items.jsonl": lines(ITEM)}),
]
_WITH_REFERENCES = {"splits": {"train": {"files": ["items.jsonl"], "references": "r.json"}}}
_ITEMS: Files = {"items.jsonl": lines(_item(id="7", image="a.png"))}
_REFERENCES: dict[str, str | bytes] = {
    "empty": "",
    "null": "null",
    "a list": "[]",
    "a text": '"annotations"',
    "deep": _deep(100_000),
    "utf-16": '{"data": []}'.encode("utf-16"),
    "captions without pictures": '{"annotations": []}',
    "captions of a picture that is absent": '{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}',
    "captions that are lists": '{"images": [{"id": 1, "file_name": ["a"]}], "annotations": []}',
    "captions that are a text": '{"images": "ab", "annotations": "cd"}',
    "answers that are numbers": '{"data": [{"question_id": 7, "answers": [1, 2]}]}',
    "answers that are a number": '{"data": [{"question_id": 7, "answers": 3}]}',
    "answers without this item": '{"data": [{"question_id": 8, "answers": ["x"]}]}',
    "ids that are lists": '{"images": [{"id": [1], "file_name": "a"}], "annotations": []}',
}


def _folder(place: Place) -> None:
    (place.folder / "items.jsonl").mkdir()


def _fifo(place: Place) -> None:
    import os

    os.mkfifo(place.folder / "items.jsonl")


def _linked(target: str) -> Any:
    return lambda place: (place.folder / "items.jsonl").symlink_to(target)


_PLACES = {
    "absent": lambda _: None,
    "a folder": _folder,
    "a FIFO": _fifo,
    "a link to itself": _linked("items.jsonl"),
    "a link to nothing": _linked("gone.jsonl"),
    "a link to an endless device": _linked("/dev/zero"),
    "a link to the null device": _linked("/dev/null"),
    "a line of 300 MiB": lambda place: _sparse(place, 300 * 2**20),
    "a line of 300 GiB with holes": lambda place: _sparse(place, 300 * 2**30),
}


def _sparse(place: Place, size: int) -> None:
    """A file that says little and is long."""
    with place.write("items.jsonl", '{"question": "').open("r+b") as file:
        file.truncate(size)
