"""YAML that is hostile or surprising as such: aliases, tags, depth, and plain words that are no texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tools.hostile.case import Case, Ends, Place
from tools.hostile.datasets import FOLDER, ITEM, SHOWN, lines

MANIFEST = f"{FOLDER}/mine.yaml"
_REST = "splits: {train: {files: [items.jsonl]}}\nimage_domains: [text]\ntext_tasks: [questions]\n"
_SOUND = f"source: {{root: ..}}\n{_REST}"


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, content in _REFUSED.items():
        yield Case(what, SHOWN, _written(MANIFEST, content), says=(MANIFEST,))
    for what, content in _WORKS.items():
        yield Case(what, SHOWN, _written(MANIFEST, content), Ends.works)
    for group, command in _CONFIGS.items():
        for what, content in _CONTENTS.items():
            path = f"conf/{group}/odd.yaml"
            yield Case(f"{group} is {what}", command, _written(path, content), says=(path,))
    for group, values in _VALUES.items():
        for what, content in values.items():
            yield Case(f"{group} {what}", _CONFIGS[group], _written(f"conf/{group}/odd.yaml", content))


def _laughs(levels: int, width: int = 10) -> str:
    text = "a0: &a0 [x, x, x]\n"
    for k in range(levels):
        text += f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * width)}]\n"
    return text


def _mapping_laughs(levels: int) -> str:
    text = "a0: &a0 {x: 1}\n"
    for k in range(levels):
        text += f"a{k + 1}: &a{k + 1} {{{', '.join(f'k{j}: *a{k}' for j in range(10))}}}\n"
    return text


def _merge_laughs(levels: int) -> str:
    text = "a0: &a0 {x: 1}\n"
    for k in range(levels):
        text += f"a{k + 1}: &a{k + 1}\n  <<: [{', '.join([f'*a{k}'] * 10)}]\n  k{k}: 1\n"
    return text


_REFUSED: dict[str, str | bytes] = {
    "billion laughs of lists": _laughs(9) + _SOUND,
    "billion laughs of mappings": _mapping_laughs(9) + _SOUND,
    "billion laughs of merges": _merge_laughs(9) + _SOUND,
    "billion laughs in a title": _laughs(9) + "title: *a9\n" + _SOUND,
    "an alias of itself": "title: &a [*a]\n" + _SOUND,
    "a mapping that holds itself": "source: &a {root: *a}\n" + _REST,
    "an alias of nothing": "title: *nothing\n" + _SOUND,
    "lists 100000 deep": "title: " + "[" * 100_000 + "]" * 100_000 + "\n" + _SOUND,
    "lists 1000 deep": "title: " + "[" * 1000 + "]" * 1000 + "\n" + _SOUND,
    "mappings 1000 deep": "title: " + "{a: " * 1000 + "1" + "}" * 1000 + "\n" + _SOUND,
    "blocks 3000 deep": "".join("  " * k + "a:\n" for k in range(3000)) + _SOUND,
    "brackets that are never closed": "title: " + "[" * 50_000,
    "a tag that makes a Python object": "title: !!python/object/apply:os.system ['echo hi']\n" + _SOUND,
    "a tag that makes a tuple": "title: !!python/tuple [1, 2]\n" + _SOUND,
    "a tag of its own": "title: !mine x\n" + _SOUND,
    "a tag of binary": "title: !!binary aGVsbG8=\n" + _SOUND,
    "a tag of broken binary": "title: !!binary a\n" + _SOUND,
    "a tag of a set": "title: !!set {a, b}\n" + _SOUND,
    "a tag of ordered pairs": "title: !!omap [a: 1]\n" + _SOUND,
    "a tag of a number that is none": "max_new_tokens: !!int x\n" + _SOUND,
    "a tag of a date that is none": "title: !!timestamp x\n" + _SOUND,
    "a tag of a truth that is none": "title: !!bool x\n" + _SOUND,
    "a date that is none": "title: 2020-99-99\n" + _SOUND,
    "a directive of another version": "%YAML 9.9\n---\n" + _SOUND,
    "a directive that is unknown": "%TAG ! !\n%TAG ! !\n---\n" + _SOUND,
    "tabs in front": "source:\n\troot: ..\n" + _REST,
    "a key twice": _SOUND + "text_tasks: [others]\n",
    "a key twice, once in quotes": _SOUND + '"text_tasks": [others]\n',
    "a nested key twice": "source: {root: .., root: .}\n" + _REST,
    "utf-16": _SOUND.encode("utf-16"),
    "utf-16 without a mark": _SOUND.encode("utf-16-le"),
    "utf-32": _SOUND.encode("utf-32"),
    "NUL bytes inside": _SOUND.encode() + b"title: a\0b\n",
    "control characters inside": _SOUND.encode() + b"title: a\x01\x1b[31mb\n",
    "half a character escaped": _SOUND + 'title: "\\ud800"\nprompt: "\\udc00{question}"\n',
    "a number of 5000 digits": _SOUND + f"max_new_tokens: {'9' * 5000}\n",
    "a number of base sixty with 2000 places": _SOUND + f"max_new_tokens: {':'.join(['59'] * 2000)}\n",
    "an octal number": _SOUND + "max_new_tokens: 0o17\n",
    "a float that is infinite": _SOUND + "max_new_tokens: .inf\n",
    "a date for a word": _SOUND + "answer: 2020-01-01\n",
    "a no for a word": _SOUND + "answer: no\n",
    "a time for a word": _SOUND + "answer: 12:30\n",
    "a null for a word": _SOUND + "answer: ~\n",
    "a null for a list": _SOUND.replace("[questions]", "~"),
    "a merge of a text": "source:\n  <<: text\n  root: ..\n" + _REST,
    "a merge of a list of texts": "source:\n  <<: [a, b]\n  root: ..\n" + _REST,
    "a date in a list of words": _SOUND.replace("[questions]", "[2020-01-01]"),
    "a date as a key": _SOUND + "2020-01-01: x\n",
    "a line of 30 MiB without an end": b'title: "' + b"x" * (30 * 2**20),
}
_WORKS: dict[str, str | bytes] = {
    "a byte order mark": b"\xef\xbb\xbf" + _SOUND.encode(),
    "line ends of Windows": _SOUND.replace("\n", "\r\n"),
    "line ends of the old Macintosh": _SOUND.replace("\n", "\r"),
    "no line end at the end": _SOUND.rstrip("\n"),
    "anchors that are used": "source: &s {root: ..}\nnotes: &n text\ntitle: *n\n" + _REST,
    "merges that are right": "source:\n  <<: {root: .., images: .}\n" + _REST,
    "a number for a text": _SOUND + "title: 1e3\nlicence: 0x1F\ncitation: 017\n",
    "words that YAML takes for truths": _SOUND.replace("[questions]", "[yes, no, on, off]"),
    "words in many scripts": _SOUND + "title: 画像 صور תמונות\n",
    "a block text": _SOUND + "notes: |\n  one\n  two\n",
    "a document end": _SOUND + "...\n",
    "a time for a text": _SOUND + "title: 12:30:45\n",
}
_CONFIGS = {
    "recipe": ("finetune", "recipe=odd", "name=x", "threads=1"),
    "matrix": ("eval-matrix", "matrix=odd", "threads=1"),
    "data": ("finetune", "data=odd", "name=x", "threads=1"),
    "strategy": ("finetune", "strategy=odd", "data=five_tasks_a", "name=x", "threads=1"),
}
_CONTENTS: dict[str, str | bytes] = {
    "a list": "[1, 2]",
    "a text": "words",
    "a number": "12",
    "bytes": bytes(range(128, 256)),
    "utf-16": "lr: 1".encode("utf-16"),
    "billion laughs": _laughs(9),
    "brackets that are never closed": "lr: [" * 30_000,
    "10000 deep": "lr: " + "[" * 10_000 + "]" * 10_000,
    "a tag that makes a Python object": "lr: !!python/object/apply:os.system ['echo hi']\n",
    "NUL bytes": b"lr: a\0b\n",
    "a number as a key": "1: 2\n",
    "null as a key": "null: 2\n",
    "a list as a key": "? [a, b]\n: 1\n",
    "a key twice": "lr: 1\nlr: 2\n",
    "an unknown key": "nonsense: 1\n",
}
_VALUES = {
    "recipe": {
        "steps are negative": "defaults: [full_low_lr]\nsteps: -1\n",
        "steps are a word": "defaults: [full_low_lr]\nsteps: many\n",
        "steps are infinite": "defaults: [full_low_lr]\nsteps: .inf\n",
        "lr is NaN": "defaults: [full_low_lr]\nlr: .nan\n",
        "lr is infinite": "defaults: [full_low_lr]\nlr: .inf\n",
        "lr is negative": "defaults: [full_low_lr]\nlr: -1\n",
        "lr is a date": "defaults: [full_low_lr]\nlr: 2020-01-01\n",
        "mix is a text": "defaults: [full_low_lr]\nmix: general\n",
        "mix.ratio is NaN": "defaults: [full_low_lr]\nmix: {data: [general], ratio: .nan}\n",
        "mix.ratio is above one": "defaults: [full_low_lr]\nmix: {data: [general], ratio: 1.5}\n",
        "parts is a mapping": "defaults: [full_low_lr]\nparts: {language: 1}\n",
        "parts is empty": "defaults: [full_low_lr]\nparts: []\n",
    },
    "matrix": {
        "datasets is a text": "defaults: [fashion]\ndatasets: fashion_naming\n",
        "datasets holds null": "defaults: [fashion]\ndatasets: [null]\n",
        "datasets is empty": "defaults: [fashion]\ndatasets: []\n",
        "datasets holds a list": "defaults: [fashion]\ndatasets: [[fashion_naming]]\n",
        "limit is negative": "defaults: [fashion]\nlimit: -1\n",
        "limit is NaN": "defaults: [fashion]\nlimit: .nan\n",
        "temperature is NaN": "defaults: [fashion]\ndecodings: [sample]\ntemperature: .nan\n",
        "decodings is a text": "defaults: [fashion]\ndecodings: choice\n",
        "batch_size is huge": "defaults: [fashion]\nbatch_size: 99999999999999999999\nlimit: -3\n",
    },
}


def _written(path: str, content: str | bytes) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        place.write(path, content)
        place.write("items.jsonl", lines(ITEM))

    return make
