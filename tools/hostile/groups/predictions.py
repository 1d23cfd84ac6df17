"""Predictions made elsewhere: folders, lines of every layout, ids and scores."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from tools.hostile.case import Case, Ends, Place
from tools.hostile.datasets import CHOICE, lines, write_set

_FIELDS = {
    "splits": {"test": {"files": ["items.jsonl"]}},
    "answer": "letter",
    "prompt": "{question}\n{options}",
    "train_split": "",
}
_COMMAND = ("score", "predictions=p", "data=mine", "matrix.datasets=[mine]")
_FILE = "p/base/mine.jsonl"


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, content in _FILES.items():
        yield Case(f"a file {what}", _COMMAND, _written({_FILE: content}), says=("mine.jsonl",))
    for what, content in _RIGHT_FILES.items():
        yield Case(f"a file {what}", _COMMAND, _written({_FILE: content}), Ends.works)
    for what, row in _ROWS.items():
        yield Case(f"a line {what}", _COMMAND, _written({_FILE: lines(row, _SECOND)}), says=("mine.jsonl",))
    for what, row in _RIGHT_ROWS.items():
        yield Case(f"a line {what}", _COMMAND, _written({_FILE: lines(row, _SECOND)}), Ends.works)
    yield from _others()


def _others() -> Iterator[Case]:
    for what, row in _LM_EVAL.items():
        files = {"p/base/samples_mine.jsonl": lines(row, _lm(doc_id=1))}
        yield Case(f"lm-eval {what}", _COMMAND, _written(files), says=("samples_mine.jsonl",))
    for what, files in _FOLDERS.items():
        yield Case(f"a folder {what}", _COMMAND, _written(files))
    for what, make in _PLACES.items():
        yield Case(what, _COMMAND, _made(make))
    for what, given in _ARGUMENTS.items():
        command = ("score", *given, "data=mine", "matrix.datasets=[mine]")
        yield Case(what, command, _written({_FILE: lines(_FIRST, _SECOND)}))
    for what, row in _OPEN.items():
        yield Case(f"an open answer {what}", _COMMAND, _open_set({_FILE: lines(row)}), says=("mine.jsonl",))
    for what, row in _RIGHT_OPEN.items():
        yield Case(f"an open answer {what}", _COMMAND, _open_set({_FILE: lines(row)}), Ends.works)


_FIRST, _SECOND = {"id": "a", "text": "B"}, {"id": "b", "text": "A"}
_SOUND = lines(_FIRST, _SECOND)


def _set(place: Place, **fields: Any) -> None:
    items = [{**CHOICE, "id": "a"}, {**CHOICE, "id": "b"}]
    write_set(place, {**_FIELDS, **fields}, {"items.jsonl": lines(*items)})


def _written(files: dict[str, str | bytes]) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        _set(place)
        for name, content in files.items():
            place.write(name, content)

    return make


def _open_set(files: dict[str, str | bytes]) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        fields = {"splits": _FIELDS["splits"], "train_split": ""}
        write_set(place, fields, {"items.jsonl": lines({"id": "a", "question": "Which?", "answer": "red"})})
        for name, content in files.items():
            place.write(name, content)

    return make


def _made(make: Callable[[Place], object]) -> Callable[[Place], object]:
    def both(place: Place) -> None:
        _set(place)
        make(place)

    return both


def _deep(levels: int) -> str:
    return "[" * levels + "]" * levels


_FILES: dict[str, str | bytes] = {
    "of nothing": "",
    "of blanks": "\n \n",
    "of null": "null\n",
    "of lists": "[1]\n",
    "of texts": '"a"\n',
    "of one list": json.dumps([_FIRST, _SECOND]),
    "of plain words": "hello\n",
    "cut short": _SOUND[:-6],
    "in utf-16": _SOUND.encode("utf-16"),
    "in utf-32": _SOUND.encode("utf-32"),
    "in latin-1": lines({"id": "a", "text": "x"}).replace("x", "é").encode("latin-1"),
    "of NUL bytes": b"\0" * 500,
    "of random bytes": bytes(range(256)) * 4,
    "that is gzipped": gzip.compress(_SOUND.encode()),
    "of CSV": "id,text\na,B\n",
    "of brackets 100000 deep": '{"id": "a", "text": ' + _deep(100_000) + "}\n",
    "of resps 900 deep": '{"doc_id": 0, "resps": ' + "[" * 900 + '"B"' + "]" * 900 + "}\n",
    "of an item alone": lines(_FIRST),
    "of an item twice": lines(_FIRST, _FIRST, _SECOND),
    "of other items": lines({"id": "x", "text": "B"}, {"id": "y", "text": "A"}),
    "of two layouts": lines(_FIRST, {"predict": "A", "label": "B"}),
    "of texts and scores": lines(_FIRST, {"id": "b", "logprobs": [-1, -2, -3]}),
    "of a field twice": '{"id": "a", "id": "b", "text": "B"}\n{"id": "b", "text": "B"}\n',
    "of another target": lines({**_FIRST, "target": "cat"}, {**_SECOND, "target": "owl"}),
    "of a million brackets in a target": lines({**_FIRST, "target": "[" * 100_000 + "]"}, _SECOND),
    "of a target that is a sum without end": lines({**_FIRST, "target": "[" + "+".join(["1"] * 30_000) + "]"}, _SECOND),
}
_RIGHT_FILES: dict[str, str | bytes] = {
    "with a byte order mark": b"\xef\xbb\xbf" + _SOUND.encode(),
    "with line ends of Windows": _SOUND.replace("\n", "\r\n"),
    "with line ends of the old Macintosh": _SOUND.replace("\n", "\r"),
    "with blank lines": f"\n{_SOUND}\n\n",
    "with lines of no item": lines(_FIRST, _SECOND, {"id": "z", "text": "A"}),
    "without ids": lines({"text": "A"}, {"text": "B"}),
    "of scores": lines({"id": "a", "logprobs": [-1, -2, -3]}, {"id": "b", "logprobs": [-3, -2.5, -1e300]}),
    "of one score that is minus infinity": '{"id": "a", "logprobs": [-1, -Infinity, -3]}\n'
    '{"id": "b", "logprobs": [-1, -2, -3]}\n',
}
_ROWS: dict[str, dict[str, Any]] = {
    "whose text is of 2 MiB": {"id": "a", "text": "B " * 2**20},
    "without text": {"id": "a"},
    "of nothing": {},
    "whose text is null": {"id": "a", "text": None},
    "whose text is a number": {"id": "a", "text": 7},
    "whose text is a list": {"id": "a", "text": ["B"]},
    "whose text is a mapping": {"id": "a", "text": {"a": 1}},
    "of text and scores": {"id": "a", "text": "B", "logprobs": [-1, -2, -3]},
    "whose scores are a text": {"id": "a", "logprobs": "-1, -2"},
    "whose scores are texts": {"id": "a", "logprobs": ["-1", "-2", "-3"]},
    "whose scores are truths": {"id": "a", "logprobs": [True, False, True]},
    "whose scores are null": {"id": "a", "logprobs": [None, -1, -2]},
    "whose scores are NaN": {"id": "a", "logprobs": [float("nan"), -1, -2]},
    "whose scores are infinite": {"id": "a", "logprobs": [float("inf"), -1, -2]},
    "whose scores are all minus infinity": {"id": "a", "logprobs": [float("-inf")] * 3},
    "whose scores are huge whole numbers": {"id": "a", "logprobs": [-(10**400), -1, -2]},
    "whose scores are probabilities": {"id": "a", "logprobs": [0.5, 0.3, 0.2]},
    "whose scores are too few": {"id": "a", "logprobs": [-1]},
    "whose scores are none": {"id": "a", "logprobs": []},
    "whose scores are too many": {"id": "a", "logprobs": [-1.0] * 1000},
    "whose scores are lists": {"id": "a", "logprobs": [[-1], [-2], [-3]]},
    "whose id is a list": {"id": ["a"], "text": "B"},
    "whose id is null": {"id": None, "text": "B"},
    "whose id is a fraction": {"id": 1.5, "text": "B"},
    "whose id is huge": {"id": 10**30, "text": "B"},
    "whose id is of 5000 letters": {"id": "n" * 5000, "text": "B"},
    "whose predict is a list": {"predict": ["B"], "label": "B"},
    "whose predict is null": {"predict": None, "label": "B"},
}
_RIGHT_ROWS: dict[str, dict[str, Any]] = {
    "whose text is empty": {"id": "a", "text": ""},
    "whose text holds half a character": {"id": "a", "text": "B \ud800"},
    "whose text holds NUL": {"id": "a", "text": "B\0"},
    "whose text holds escape sequences": {"id": "a", "text": "\x1b[31mB\x1b[0m"},
    "whose text is a thought without end": {"id": "a", "text": "<think>" * 3000},
    "whose text is brackets": {"id": "a", "text": "(" * 20_000},
    "with other fields": {"id": "a", "text": "B", "usage": {"tokens": [1, [2]]}},
    "whose target is null": {"id": "a", "text": "B", "target": None},
}


def _lm(**fields: Any) -> dict[str, Any]:
    return {"doc_id": 0, "doc": {}, "target": "dog", "resps": [["B"]], "filtered_resps": ["B"], **fields}


_LM_EVAL: dict[str, dict[str, Any]] = {
    "doc_id is a text": _lm(doc_id="zero"),
    "doc_id is negative": _lm(doc_id=-1),
    "doc_id is huge": _lm(doc_id=2**70),
    "doc_id is a fraction": _lm(doc_id=0.5),
    "doc_id is true": _lm(doc_id=True),
    "doc_id is another's": _lm(doc_id=1),
    "resps are null": _lm(resps=None, filtered_resps=None),
    "resps are a number": _lm(filtered_resps=7),
    "resps are a mapping": _lm(filtered_resps={"a": 1}),
    "resps are empty": _lm(filtered_resps=[]),
    "resps are of words for numbers": _lm(filtered_resps=[["much", "True"], ["more", "False"]]),
    "resps are of numbers of 5000 digits": _lm(filtered_resps=[["9" * 5000, "True"], [10**400, "False"]]),
    "resps are of NaN": _lm(filtered_resps=[["nan", "True"], ["nan", "False"], ["nan", "False"]]),
    "resps are of two candidates": _lm(filtered_resps=[["-1", "True"], ["-2", "False"]]),
    "filter is a list": _lm(filter=["a"]),
    "filter is a number beside a text": _lm(filter=7),
    "doc is a list": _lm(doc=[1], doc_id=5),
    "target is another's": _lm(target="owl"),
}
_FOLDERS: dict[str, dict[str, str | bytes]] = {
    "of no checkpoints": {"p/readme.txt": "x"},
    "of a checkpoint without a step": {"p/latest/mine.jsonl": _SOUND},
    "of two of one step": {"p/a1/mine.jsonl": _SOUND, "p/b1/mine.jsonl": _SOUND},
    "of a step of 5000 digits": {f"p/s{'9' * 200}/mine.jsonl": _SOUND},
    "of a step beyond every integer of tables": {f"p/s{2**64}/mine.jsonl": _SOUND},
    "of no file of the set": {"p/base/other.jsonl": _SOUND},
    "of two files of the set": {"p/base/mine.jsonl": _SOUND, "p/base/mine/predictions.jsonl": _SOUND},
    "of a file in the place of the checkpoint": {"p/base": "x"},
}


def _link(name: str, target: str) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        path = place.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    return make


def _fifo(place: Place) -> None:
    (place.folder / "p/base").mkdir(parents=True)
    os.mkfifo(place.folder / _FILE)


def _as_folder(place: Place) -> None:
    (place.folder / _FILE).mkdir(parents=True)


def _long(place: Place) -> None:
    with place.write(_FILE, '{"id": "a", "text": "').open("r+b") as file:
        file.truncate(50 * 2**30)


_PLACES: dict[str, Callable[[Place], object]] = {
    "predictions are absent": lambda _: None,
    "predictions are a file": lambda place: place.write("p", "x"),
    "predictions are a link to itself": _link("p", "p"),
    "predictions are a device": _link("p", "/dev/zero"),
    "a file is a FIFO": _fifo,
    "a file is a folder": _as_folder,
    "a file is a link to an endless device": _link(_FILE, "/dev/zero"),
    "a file is a link to itself": _link(_FILE, "mine.jsonl"),
    "a file is a line of 50 GiB with holes": _long,
}
_ARGUMENTS = {
    "predictions of a name with NUL": ("predictions='p\0q'",),
    "predictions of 5000 letters": ("predictions=" + "n" * 5000,),
    "predictions of a list": ("predictions=[p]",),
    "predictions and a run": ("predictions=p", "run=outputs/x"),
    "neither predictions nor a run": (),
    "a model's name that is a list": ("predictions=p", "model_name=[x]"),
    "partial that is a word": ("predictions=p", "partial=perhaps"),
    "a limit of zero": ("predictions=p", "matrix.limit=0"),
    "a limit that is negative": ("predictions=p", "matrix.limit=-3"),
}
_OPEN: dict[str, dict[str, Any]] = {
    "with scores": {"id": "a", "logprobs": [-1.0]},
    "with another target": {"id": "a", "text": "red", "target": "blue"},
}
_RIGHT_OPEN: dict[str, dict[str, Any]] = {
    "of digits of 5000 places": {"id": "a", "text": "9" * 5000},
    "of digits of another script": {"id": "a", "text": "\u0967\u0968\u2460\u00b2"},
    "of combining marks": {"id": "a", "text": "e" + "\u0301" * 5000},
    "of a power of ten": {"id": "a", "text": "1e999999999 -1e-999999999 NaN inf"},
    "of brackets and commas": {"id": "a", "text": "[" * 5000 + "," * 5000},
    "of blanks of every kind": {"id": "a", "text": "\u00a0\u2003\u200b\ufeff\t\n"},
    "of right to left": {"id": "a", "text": "\u202ered\u202c"},
}
