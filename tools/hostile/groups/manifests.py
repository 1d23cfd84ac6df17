"""Manifests whose values are of another type, out of range, or contradict each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tools.hostile.case import Case, Ends, Place
from tools.hostile.datasets import CHOICE, FOLDER, ITEM, SHOWN, SOUND, as_yaml, lines, set_case

MANIFEST = f"{FOLDER}/mine.yaml"


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, content in _WHOLE.items():
        yield Case(f"is {what}", SHOWN, _written(content), says=(MANIFEST,))
    for what, fields in _FIELDS.items():
        yield set_case(what, fields, says=[MANIFEST])
    for what, fields in _RIGHT.items():
        yield set_case(what, fields, {"items.jsonl": lines(CHOICE if "answer" in fields else ITEM)}, Ends.works)
    for what, mixture in _MIXTURES.items():
        yield set_case(f"mixture of {what}", _mixture(mixture), says=[_says(what)], command=_TRAINED)
    for what, mixture in _RIGHT_MIXTURES.items():
        yield set_case(f"mixture of {what}", _mixture(mixture), ends=Ends.works, command=_TRAINED)
    for depth in (40, 4000):
        yield Case(f"mixtures {depth} deep", _TRAINED, _chain(depth), Ends.refused, ("'mine'",))
    yield Case("mixtures that double 30 times", _TRAINED, _doubling, Ends.works)
    yield Case("mixtures in a circle of three", _TRAINED, _circle, says=("mine",))
    yield Case("mixture of a broken part", _TRAINED, _broken_part, says=("other.yaml",))
    for what, make in _PLACES.items():
        yield Case(f"is {what}", SHOWN, make, says=(MANIFEST,))
    yield Case("manifests name a file", (*SHOWN, "manifests=[file]"), lambda place: place.write("file", "x"))
    yield Case("manifests name a device", (*SHOWN, "manifests=[/dev/zero]"), lambda _: None)
    yield Case("manifests name a number", (*SHOWN, "manifests=3"), lambda _: None)
    yield Case("another manifest is broken", SHOWN, _sound_beside_broken, Ends.works)


def _says(what: str) -> str:
    return "fashion_naming.yaml" if what == "an unknown split" else "mine"


_TRAINED = ("data", "audit", "mine")
_DEEP_LIST: Any = None
for _ in range(200):
    _DEEP_LIST = [_DEEP_LIST]

_WHOLE: dict[str, str | bytes] = {
    "empty": "",
    "blank": " \n\n  \n",
    "null": "null",
    "a list": "[1, 2]",
    "a list of mappings": "- source: {}\n- splits: {}\n",
    "a text": "just words",
    "a number": "12",
    "a date": "2020-01-01",
    "true": "true",
    "only a comment": "# nothing\n",
    "a key without a value": "source:",
    "two documents": as_yaml(SOUND) + "\n---\n" + as_yaml(SOUND),
    "a list as a key": "? [a, b]\n: 1\n",
    "a number as a key": "1: 2\n",
    "null as a key": "null: 2\n",
    "a mapping as a key": "? {a: b}\n: 1\n",
    "bytes of a picture": b"\x89PNG\r\n\x1a\n\x00\x00",
    "random bytes": bytes(range(256)) * 4,
    "utf-8 that is cut short": as_yaml(SOUND).encode() + b"\nnotes: caf\xc3",
    "latin-1": as_yaml({**SOUND}).encode()[:-1] + ', "notes": "café"}'.encode("latin-1"),
    "a zip": b"PK\x03\x04" + b"\0" * 40,
    "gzipped": b"\x1f\x8b\x08" + b"\0" * 40,
    "html": "<!DOCTYPE html><html><body>404</body></html>",
    "a merge conflict": "<<<<<<< HEAD\nsource: {}\n=======\nsource: {root: x}\n>>>>>>> other\n",
    "a Git LFS pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
}


def _source(**fields: Any) -> dict[str, Any]:
    return {"source": {"root": "..", **fields}}


def _split(**fields: Any) -> dict[str, Any]:
    return {"splits": {"train": {"files": ["items.jsonl"], **fields}}}


_FIELDS: dict[str, dict[str, Any]] = {
    "source is a text": {"source": "items.jsonl"},
    "source is a list": {"source": ["items.jsonl"]},
    "source is a number": {"source": 3},
    "source is true": {"source": True},
    "source and mixture": {"mixture": {"fashion_naming": 1}},
    "source.kind is unknown": _source(kind="xml"),
    "source.kind is a number": _source(kind=7),
    "source.kind is a list": _source(kind=["jsonl"]),
    "source.kind is null": _source(kind=None),
    "source.root is a list": {"source": {"root": ["a"]}},
    "source.root is a mapping": {"source": {"root": {"a": 1}}},
    "source.root is null": {"source": {"root": None}},
    "source.root is of 5000 letters": {"source": {"root": "n" * 5000}},
    "source.root holds NUL": {"source": {"root": "a\0b"}},
    "source.root holds half a character": {"source": {"root": "a\ud800b"}},
    "source.images is a list": _source(images=["a", "b"]),
    "source.images holds NUL": _source(images="a\0b"),
    "source.sha256 is a list": _source(sha256=["abc"]),
    "source.columns is a list": _source(columns=["question"]),
    "source.columns is a text": _source(columns="question"),
    "source.columns to a list": _source(columns={"question": ["a", "b"]}),
    "source.columns to null": _source(columns={"question": None}),
    "source.columns to a mapping": _source(columns={"question": {"a": "b"}}),
    "source.sha256 is a text": _source(sha256="abc"),
    "source.sha256 is nested": _source(sha256={"items.jsonl": {"a": 1}}),
    "source.streaming is a word": _source(streaming="perhaps"),
    "source.adapter is unknown": _source(adapter="nonsense"),
    "source.adapter is a list": _source(adapter=["mmmu"]),
    "source.hub_id without hub": _source(hub_id="a/b"),
    "source.kind hub without an id": _source(kind="hub"),
    "source.revision is a mapping": _source(revision={"a": 1}),
    "source has an unknown key": _source(fils=["a"]),
    "source has a deep list": _source(root=_DEEP_LIST),
    "splits is a list": {"splits": ["train"]},
    "splits is a text": {"splits": "train"},
    "splits is empty": {"splits": {}},
    "splits is null": {"splits": None, "train_split": ""},
    "splits.train is a text": {"splits": {"train": "items.jsonl"}},
    "splits.train is a list": {"splits": {"train": ["items.jsonl"]}},
    "splits.train is null": {"splits": {"train": None}},
    "splits.train is a number": {"splits": {"train": 3}},
    "splits.files is a text": _split(files="items.jsonl"),
    "splits.files is a mapping": _split(files={"a": 1}),
    "splits.files is null": _split(files=None),
    "splits.files is empty": _split(files=[]),
    "splits.files holds null": _split(files=[None]),
    "splits.files holds a list": _split(files=[["items.jsonl"]]),
    "splits.files holds an empty name": _split(files=[""]),
    "splits.files holds NUL": _split(files=["a\0b"]),
    "splits.files holds 5000 letters": _split(files=["n" * 5000]),
    "splits.files holds 256 letters": _split(files=["n" * 256]),
    "splits.files holds half a character": _split(files=["\ud800.jsonl"]),
    "splits.files holds an escape sequence": _split(files=["\x1b[31mred.jsonl"]),
    "splits.n is a text": _split(n="many"),
    "splits.n is a list": _split(n=[1]),
    "splits.n is beyond 64 bits": _split(n=10**30),
    "splits.n is a trillion": _split(n=10**12),
    "splits.n is negative": _split(n=-1),
    "splits.n is a fraction": _split(n=1.5),
    "splits.limit is negative": _split(limit=-5),
    "splits.limit is zero": _split(limit=0),
    "splits.limit is infinite": _split(limit=float("inf")),
    "splits.limit is NaN": _split(limit=float("nan")),
    "splits.references is a list": _split(references=["a"]),
    "splits.references is not there": _split(references="absent.json"),
    "splits has an unknown key": _split(fles=["a"]),
    "train_split is none of the splits": {"train_split": "trian"},
    "train_split is a list": {"train_split": ["train"]},
    "eval_split is a mapping": {"eval_split": {"a": 1}},
    "image_domains is empty": {"image_domains": []},
    "image_domains is a text": {"image_domains": "text"},
    "image_domains is null": {"image_domains": None},
    "image_domains holds null": {"image_domains": [None]},
    "image_domains holds a mapping": {"image_domains": [{"a": 1}]},
    "text_tasks is a number": {"text_tasks": 3},
    "text_tasks holds a list": {"text_tasks": [["a"]]},
    "shift is a list": {"shift": ["near"]},
    "probe is a word": {"probe": "perhaps"},
    "probe without its items' place": {"probe": True},
    "role is unknown": {"role": "king"},
    "prompt is a list": {"prompt": ["{question}"]},
    "prompt is a mapping": {"prompt": {"a": 1}},
    "prompt is empty": {"prompt": ""},
    "prompt has a lone brace": {"prompt": "{question"},
    "prompt asks for attributes": {"prompt": "{question.__class__}"},
    "prompt asks for an index": {"prompt": "{question[0]}"},
    "prompt pads a billion wide": {"prompt": "{question:>1000000000}"},
    "prompt nests its format": {"prompt": "{question:{answer}}"},
    "prompt converts": {"prompt": "{question!r}"},
    "prompt asks for a place": {"prompt": "{0}"},
    "prompt asks for nothing": {"prompt": "{}"},
    "prompt asks for an absent field": {"prompt": "{nothing}"},
    "prompt holds NUL": {"prompt": "{question}\0"},
    "prompt holds half a character": {"prompt": "{question}\ud800"},
    "answer is unknown": {"answer": "word"},
    "answer is false": {"answer": False},
    "answer is a list": {"answer": ["text"]},
    "answer is letter without options": {"answer": "letter"},
    "answer_is is unknown": {"answer": "letter", "answer_is": "roman"},
    "answer_is with open answers": {"answer_is": "text"},
    "options is a text": {"answer": "option", "options": "yes, no"},
    "options is a mapping": {"answer": "option", "options": {"a": "yes"}},
    "options holds a list": {"answer": "option", "options": [["yes"], "no"]},
    "options holds null": {"answer": "option", "options": ["yes", None]},
    "options is one": {"answer": "option", "options": ["red"]},
    "options repeat": {"answer": "option", "options": ["red", "red"]},
    "options are thirty letters": {"answer": "letter", "prompt": "{options}", "options": [f"o{k}" for k in range(30)]},
    "metric is unknown": {"metric": "bleu"},
    "metric of open answers with letters": {"metric": "anls", "answer": "letter"},
    "cluster_by is empty": {"cluster_by": []},
    "cluster_by is three": {"cluster_by": ["a", "b", "c"]},
    "cluster_by is a text": {"cluster_by": "image"},
    "cluster_by names an absent field": {"cluster_by": ["nothing"]},
    "cluster_by holds null": {"cluster_by": [None]},
    "max_new_tokens is zero": {"max_new_tokens": 0},
    "max_new_tokens is a text": {"max_new_tokens": "all"},
    "max_new_tokens is NaN": {"max_new_tokens": float("nan")},
    "stop holds an empty text": {"stop": [""]},
    "stop is a text": {"stop": "\n"},
    "stop holds null": {"stop": [None]},
    "title is a list": {"title": ["a"]},
    "title is a mapping": {"title": {"a": 1}},
    "name is another": {"name": "other"},
    "name is a list": {"name": ["mine"]},
    "path is given": {"path": "/etc/passwd", "splits": "x"},
    "a key is unknown": {"sauce": 1},
    "a key is of 5000 letters": {"k" * 5000: 1},
    "a key holds an escape sequence": {"\x1b[31mred": 1},
    "a key has dots": {"source.root": "x"},
    "a key is empty": {"": 1},
    "a value refers to another": {"title": "${notes}", "notes": "${title}"},
    "a value refers to the environment": {"title": "${oc.env:CANARY}"},
    "a value refers to nothing": {"title": "${absent}"},
    "a value is an unfinished reference": {"title": "${oops"},
}
_RIGHT: dict[str, dict[str, Any]] = {
    "verified is a number": {"verified": 7},
    "a value is missing by name": {"title": "???"},
    "splits.limit is huge": _split(limit=10**18),
    "title is a number": {"title": 12},
    "notes of a million letters": {"notes": "n" * 1_000_000},
    "notes hold escape sequences": {"notes": "\x1b]0;title\x07\x1b[2J"},
    "title is right to left": {"title": "\u202eevil", "notes": "\u2066x"},
    "text_tasks are numbers": {"text_tasks": [1, 2.5]},
    "text_tasks repeat": {"text_tasks": ["a"] * 1000},
    "a thousand splits": {"splits": {f"s{k}": {"files": ["items.jsonl"]} for k in range(1000)}, "train_split": "s0"},
    "options of ten thousand": {"answer": "option", "options": ["dog", *(f"o{k}" for k in range(10_000))]},
    "a split's name of 256 letters": {"splits": {"s" * 256: {"files": ["items.jsonl"]}}},
    "a split's name is a number": {"splits": {7: {"files": ["items.jsonl"]}}},
    "domain names of 5000 letters": {"image_domains": ["text"], "text_tasks": ["t" * 5000]},
}


def _mixture(mixture: object) -> dict[str, Any]:
    return {"source": None, "splits": None, "mixture": mixture}


_MIXTURES: dict[str, object] = {
    "nothing": {},
    "a list": ["fashion_naming"],
    "a text": "fashion_naming",
    "NaN": {"fashion_naming": float("nan")},
    "infinity": {"fashion_naming": float("inf")},
    "NaN beside one": {"fashion_naming": 1, "digits_naming": float("nan")},
    "infinity beside one": {"fashion_naming": 1, "digits_naming": float("inf")},
    "minus infinity": {"fashion_naming": 1, "digits_naming": float("-inf")},
    "weights that overflow": {"fashion_naming": 1e308, "digits_naming": 1e308, "fashion_shifted": 1e308},
    "a negative weight": {"fashion_naming": 2, "digits_naming": -1},
    "weights of zero": {"fashion_naming": 0},
    "a weight that is a word": {"fashion_naming": "much"},
    "a weight that is null": {"fashion_naming": None},
    "a weight that is a list": {"fashion_naming": [1]},
    "a weight that is a mapping": {"fashion_naming": {"weight": 1}},
    "an unknown set": {"fashoin_naming": 1},
    "an empty name": {"": 1},
    "an unknown split": {"fashion_naming:trian": 1},
    "itself": {"mine": 1},
    "itself and another": {"fashion_naming": 1, "mine": 1},
    "itself in a union": {"mine+fashion_naming": 1},
    "a name of 5000 letters": {"n" * 5000: 1},
    "a name with an escape sequence": {"\x1b[31mred": 1},
    "null as a name": {None: 1},
    "a weight that is true": {"fashion_naming": True},
}
_RIGHT_MIXTURES: dict[str, object] = {
    "a tiny weight": {"fashion_naming": 1, "digits_naming": 1e-300},
    "a weight of a number as text": {"fashion_naming": "2"},
    "a union": {"fashion_naming+digits_naming": 1},
}


def _written(content: str | bytes) -> Any:
    def make(place: Place) -> None:
        place.write(MANIFEST, content)
        place.write("items.jsonl", lines(ITEM))

    return make


def _chain(depth: int) -> Any:
    def make(place: Place) -> None:
        place.write(MANIFEST, as_yaml({**_LISTS, "mixture": {"m0": 1}}))
        for k in range(depth):
            place.write(f"{FOLDER}/m{k}.yaml", as_yaml({**_LISTS, "mixture": {f"m{k + 1}": 1}}))
        place.write(f"{FOLDER}/m{depth}.yaml", as_yaml(SOUND))
        place.write("items.jsonl", lines(ITEM))

    return make


_LISTS = {name: SOUND[name] for name in ("image_domains", "text_tasks")}


def _doubling(place: Place) -> None:
    """Thirty levels, each of which names the next one twice: 2^30 paths to one set."""
    place.write("items.jsonl", lines(ITEM))
    for k in range(30):
        name = "mine" if k == 0 else f"m{k}"
        parts = {f"m{k + 1}": 1, f"m{k + 1}:train": 1}
        place.write(f"{FOLDER}/{name}.yaml", as_yaml({**_LISTS, "mixture": parts}))
    place.write(f"{FOLDER}/m30.yaml", as_yaml(SOUND))


def _circle(place: Place) -> None:
    for name, part in (("mine", "two"), ("two", "three"), ("three", "mine")):
        place.write(f"{FOLDER}/{name}.yaml", as_yaml({**_LISTS, "mixture": {part: 1}}))


def _broken_part(place: Place) -> None:
    place.write(MANIFEST, as_yaml({**_LISTS, "mixture": {"other": 1}}))
    place.write(f"{FOLDER}/other.yaml", "a: [")


def _sound_beside_broken(place: Place) -> None:
    _written(as_yaml(SOUND))(place)
    place.write(f"{FOLDER}/other.yaml", "a: [")


def _folder(place: Place) -> None:
    (place.folder / MANIFEST).mkdir(parents=True)


def _linked(target: str) -> Any:
    def make(place: Place) -> None:
        path = place.folder / MANIFEST
        path.parent.mkdir(parents=True)
        path.symlink_to(target)

    return make


def _fifo(place: Place) -> None:
    import os

    path = place.folder / MANIFEST
    path.parent.mkdir(parents=True)
    os.mkfifo(path)


def _unreadable(place: Place) -> None:
    place.write(MANIFEST, as_yaml(SOUND)).chmod(0)


_PLACES = {
    "a folder": _folder,
    "a link to nothing": _linked("absent"),
    "a link to itself": _linked("mine.yaml"),
    "a link to an endless device": _linked("/dev/zero"),
    "a link to the null device": _linked("/dev/null"),
    "a FIFO": _fifo,
    "of 80 MiB": _written(b"# filler\n" * (80 * 2**20 // 9) + json.dumps(SOUND).encode()),
}
