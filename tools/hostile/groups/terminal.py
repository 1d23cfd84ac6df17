"""Names and texts that would colour, clear, retitle or reorder the terminal, wherever a file may hold them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from tools.hostile.case import Case, Ends, Place
from tools.hostile.groups.read_back import RUN, edited, settings

_SIGNS = {
    "a colour": "\x1b[31mred",
    "a title": "\x1b]0;pwned\x07",
    "a link": "\x1b]8;;https://example.com\x1b\\here\x1b]8;;\x1b\\",
    "a clearing": "\x1b[2J\x1b[H",
    "a C1 sequence": "\x9b31mred",
    "a line going up": "\x1b[A\x1b[2Kgone",
    "a direction": "\u202egnp.exe\u2066\u2069",
    "a bell and a backspace": "a\x07\x08b",
    "a deletion": "a\x7fb",
    "Rich's markup": "[red]a[/red] [link=https://example.com]b[/link] [/]",
    "a query of the terminal": "\x1b[6n\x1bP+q\x1b\\",
}
_ALL = "".join(_SIGNS.values())
_ROW = {"id": "a", "question": "Which?", "options": ["x", "y"], "answer": "A"}


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, sign in _SIGNS.items():
        yield Case(f"a set's title with {what}", ("data", "show", "set"), _set({"title": sign}), Ends.works)
        yield Case(f"a task with {what} in a list", ("data", "list"), _set({"text_tasks": [sign]}), Ends.works)
        yield Case(f"a task with {what} in JSON", ("data", "list", "--json"), _set({"text_tasks": [sign]}), Ends.works)
        yield Case(f"a set called like {what}", ("data", "list"), _named(sign), Ends.works)
        yield Case(f"a question with {what}", ("data", "show", "set"), _set({}, {"question": sign}), Ends.works)
        yield Case(f"typed: a set like {what}", ("data", "show", sign), _nothing)
        yield Case(f"typed: a key like {what}", ("finetune", f"{sign}=1"), _nothing)
        yield Case(f"typed: a value like {what}", ("finetune", f"recipe={sign}"), _nothing)
    for what, fields in _FIELDS.items():
        yield Case(f"a manifest's {what}", ("data", "show", "set"), _set(fields), Ends.either)
    for what, row in _ROWS.items():
        yield Case(f"an item's {what}", ("data", "show", "set"), _set({}, row), Ends.either)
        yield Case(f"an item's {what}, checked", ("data", "audit", "set"), _set({}, row), Ends.either)
    for what, (name, text) in _FILES.items():
        yield Case(f"a file: {what}", ("data", "show", "set"), _file(name, text))
    for what, (name, text) in _CONFIGURATIONS.items():
        yield Case(f"a configuration: {what}", ("finetune", "recipe=evil"), _configuration(name, text))
    for what, changes in _RUNS.items():
        for command in (("show", RUN), ("compare", RUN), ("show", RUN, "--json"), ("export", RUN, "to", "--adapter")):
            yield Case(f"{' '.join(command)}: {what}", command, settings(changes), Ends.either)
    for what, (name, change) in _MODELS.items():
        yield Case(
            f"a model: {what}", ("models", "show", "model=local", "model.path=m"), _model(name, change), Ends.either
        )


_FIELDS: dict[str, dict[str, object]] = {
    "domain": {"image_domains": [_ALL]},
    "unknown key": {_ALL: 1},
    "unknown split": {"eval_split": _ALL},
    "split": {"splits": {_ALL: {"files": ["rows.jsonl"]}}, "eval_split": _ALL},
    "file": {"splits": {"test": {"files": [_ALL]}}},
    "adapter": {"source": {"root": ".", "adapter": _ALL}},
    "column": {"source": {"root": ".", "columns": {"question": _ALL}}},
    "prompt": {"prompt": f"{{question}} {{options}} {_ALL}"},
    "prompt's field": {"prompt": "{question} {options} {\x1b[31m}"},
    "licence": {"licence": _ALL, "citation": _ALL, "homepage": _ALL, "notes": _ALL},
    "metric": {"metric": _ALL},
    "kind": {"source": {"root": ".", "kind": _ALL}},
    "Hub id": {"source": {"kind": "hub", "hub_id": _ALL}, "splits": {"test": {"hub_split": "test"}}},
    "cluster": {"cluster_by": [_ALL]},
    "mixture": {"source": None, "splits": {}, "mixture": {_ALL: 1.0}},
}
_ROWS: dict[str, dict[str, object]] = {
    "id": {"id": _ALL},
    "option": {"options": [_ALL, "y"]},
    "answer": {"answer": _ALL},
    "picture": {"image": _ALL},
    "field": {_ALL: 1, "answer": "nothing"},
    "role": {"messages": [{"role": _ALL, "content": "x"}]},
    "reply": {"messages": [{"role": "user", "content": _ALL}, {"role": "assistant", "content": _ALL}]},
}
_FILES = {
    "JSON that is none": ("rows.jsonl", f"{_ALL}\n"),
    "a list in place of an item": ("rows.jsonl", json.dumps([_ALL]) + "\n"),
    "a repeated id": ("rows.jsonl", 2 * (json.dumps({**_ROW, "id": _ALL}) + "\n")),
    "YAML that is none": ("set.yaml", "a: [\x85\u202e"),
    "a key twice": ("set.yaml", '"\\e[31m": 1\n"\\e[31m": 2\n'),
    "a tag": ("set.yaml", "a: !\u202eevil 1"),
    "an anchor that is not there": ("set.yaml", "a: *\u202eevil"),
}
_CONFIGURATIONS = {
    "a key": ("evil", '"\\e[31mkey": 1\n'),
    "a value": ("evil", 'precision: "\\e[31mred"\n'),
    "a list of parts": ("evil", 'parts: ["\\e[31mred"]\n'),
    "a default": ("evil", 'defaults: ["\\e[31mred"]\n'),
    "a reference": ("evil", 'precision: "${\\e[31mred}"\n'),
    "another file's name": ("evil\x1b[31m", "lr: 1\n"),
}
_RUNS: dict[str, dict[str, object]] = {
    "a strategy": {"strategy": _ALL},
    "a model's path": {"model.path": _ALL},
    "a name": {"name": _ALL},
    "a stage": {"data.stages": [{"set": _ALL}]},
    "a method": {"method.name": _ALL},
    "a key": {_ALL.replace(".", ""): 1},
    "a value of another type": {"recipe.batch_size": _ALL},
}
_MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "its type": ("config.json", {"model_type": _ALL}),
    "its architecture": ("config.json", {"architectures": [_ALL]}),
    "an unknown key": ("config.json", {_ALL: _ALL}),
    "its width": ("config.json", {"text_config": {"model_type": "llama", "hidden_size": _ALL}}),
    "its processor": ("processor_config.json", {"processor_class": _ALL}),
    "its tokenizer": ("tokenizer_config.json", {"tokenizer_class": _ALL}),
    "its template": (
        "tokenizer_config.json",
        {"chat_template": "{{ raise_exception('" + _ALL.replace("\\", "") + "') }}"},
    ),
    "a token": ("tokenizer_config.json", {"pad_token": _ALL}),
}


def _nothing(_: Place) -> None:
    """No file is needed."""


def _set(fields: dict[str, object], row: dict[str, object] | None = None, name: str = "set") -> Callable[[Place], None]:
    def make(place: Place) -> None:
        manifest = {
            "source": {"root": "."},
            "splits": {"test": {"files": ["rows.jsonl"]}},
            "image_domains": ["text"],
            "text_tasks": ["naming"],
            "prompt": "{question} {options}",
            "answer": "letter",
            **fields,
        }
        place.write(f"data_manifests/{name}.yaml", json.dumps(manifest))
        place.write("data_manifests/rows.jsonl", json.dumps({**_ROW, **(row or {})}) + "\n")

    return make


def _named(sign: str) -> Callable[[Place], None]:
    return _set({}, name=f"a{sign.replace('/', '').replace(':', '')}")


def _file(name: str, text: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        _set({})(place)
        place.write(f"data_manifests/{name}", text)

    return make


def _configuration(name: str, text: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        place.write(f"conf/recipe/{name}.yaml", text)
        if name != "evil":
            place.write("conf/recipe/evil.yaml", f"defaults: [{json.dumps(name)}]\n")

    return make


def _model(name: str, changes: dict[str, object]) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        place.copy("model", "m")
        edited(place.folder / "m" / name, lambda content: content.update(changes))

    return make
