"""Combinations: a run scored elsewhere, folders of configurations that are links, references within references."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tools.hostile.case import Case, Ends, Place
from tools.hostile.datasets import SHOWN, set_case

RUN = "outputs/lora"


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, change in _SCORED.items():
        for verb in ("show", "score", *(_MORE if what.startswith("outputs is e") else ())):
            words = _COMMANDS[verb]
            yield Case(f"{verb}: scored.json's {what}", words, _scored(change), Ends.either)
    for what, words in _TYPED.items():
        yield Case(f"typed: {what}", ("finetune", *words, "recipe.steps=1", "threads=1"), lambda place: None)
    for what, fields in _LISTS.items():
        yield set_case(f"a manifest's {what}", fields)
    for what, (make, command) in _FOLDERS.items():
        yield Case(what, command, make, Ends.either)


_MORE = ("report", "compare", "eval-matrix")
_AGAIN = ("matrix=last", "threads=1")
_COMMANDS: dict[str, tuple[str, ...]] = {
    "report": ("report", RUN),
    "show": ("show", RUN),
    "compare": ("compare", RUN),
    "score": ("score", f"run={RUN}"),
    "eval-matrix": ("eval-matrix", f"run={RUN}", *_AGAIN),
}
_SCORED: dict[str, dict[str, Any]] = {
    "outputs is elsewhere": {"outputs": "../../../outside"},
    "outputs is in proc": {"outputs": "/proc/self"},
    "outputs is a file": {"outputs": "run.json"},
    "outputs is empty": {"outputs": ""},
    "outputs is of 5000 letters": {"outputs": "a" * 5000},
    "outputs holds an escape sequence": {"outputs": "\x1b[31mred"},
    "manifests are elsewhere": {"manifests": ["../../../outside"]},
    "manifests are a device": {"manifests": ["/dev/zero"]},
    "manifests are the whole disk": {"manifests": ["/"]},
    "matrix holds a reference": {"matrix": {"datasets": ["${oc.env:CANARY}"]}},
    "matrix is of nested references": {"matrix": {"datasets": ["${${oc.env:CANARY}}"]}},
    "matrix names a path": {"matrix": {"datasets": ["../../../outside/secret.txt"]}},
    "matrix has a huge limit": {"matrix": {"limit": 10**30}},
    "matrix has a negative limit": {"matrix": {"limit": -3}},
    "matrix is a text": {"matrix": "quick"},
    "matrix is null": {"matrix": None},
    "matrix is deep": {"matrix": {"datasets": json.loads("[" * 300 + "]" * 300)}},
}
_TYPED: dict[str, tuple[str, ...]] = {
    "a reference within a reference": ("name=${${name}}",),
    "a reference that is not closed": ("name=${",),
    "a reference to what is not set": ("name=${oc.env:NOT_THERE_AT_ALL}",),
    "a reference to what it is in": ("recipe.lr=${recipe}",),
    "a secret within a reference": ("name=${oc.env:${oc.env:CANARY}}",),
    "a reference in a list": ("recipe.mix.data=[${${x}}]",),
    "a reference in a mapping": ("recipe.lr={language: ${}}",),
}
_LISTS: dict[str, dict[str, Any]] = {
    "domains hold the environment": {"image_domains": ["text", "${oc.env:CANARY}"]},
    "domains hold a reference within a reference": {"image_domains": ["${${oc.env:CANARY}}"]},
    "options hold the environment": {"options": ["a", "${oc.env:CANARY}"]},
    "files hold the environment": {"splits": {"train": {"files": ["${oc.env:CANARY}"]}}},
    "stops hold the environment": {"stop": ["${oc.env:CANARY}"]},
    "columns hold the environment": {"source": {"root": "..", "columns": {"question": "${oc.env:CANARY}"}}},
    "mixture is of the environment": {"source": None, "splits": None, "mixture": {"${oc.env:CANARY}": 1.0}},
    "keys are references": {"${oc.env:CANARY}": "a"},
}


def _linked(what: str) -> Callable[[Place], object]:
    """A link in the working folder to what is beside it."""

    def make(place: Place) -> None:
        where = place.folder / what
        where.parent.mkdir(parents=True, exist_ok=True)
        where.symlink_to(place.outside if where.suffix == "" else place.outside / "secret.txt")

    return make


def _searched(place: Place) -> None:
    place.write("other/recipe/own.yaml", "defaults: [/schema/recipe@_here_]\nprecision: ${oc.env:CANARY}\n")


def _looped(place: Place) -> None:
    place.write("conf/recipe/keep", "")
    (place.folder / "conf/recipe/recipe").symlink_to("..")
    (place.folder / "conf/recipe/own.yaml").symlink_to("own.yaml")


_OWN = ("finetune", "recipe=own", "recipe.steps=1", "threads=1", "name=x")
_FOLDERS: dict[str, tuple[Callable[[Place], object], tuple[str, ...]]] = {
    "conf is a link elsewhere": (_linked("conf"), _OWN),
    "conf/recipe is a link elsewhere": (_linked("conf/recipe"), _OWN),
    "a recipe is a link to a secret": (_linked("conf/recipe/own.yaml"), _OWN),
    "a recipe is a link to itself": (_looped, _OWN),
    "data_manifests is a link elsewhere": (_linked("data_manifests"), SHOWN),
    "a manifest is a link to a secret": (_linked("data_manifests/mine.yaml"), SHOWN),
    "a recipe of a searched folder": (_searched, (*_OWN, "hydra.searchpath=[file://other]")),
    "a searched folder that is not there": (_searched, (*_OWN, "hydra.searchpath=[file://nowhere]")),
    "a searched folder of a module": (_searched, (*_OWN, "hydra.searchpath=[pkg://os]")),
    "a searched folder of the network": (_searched, (*_OWN, "hydra.searchpath=[http://localhost/x]")),
    "a searched folder that is a text": (_searched, (*_OWN, "hydra.searchpath=other")),
}


def _scored(change: dict[str, Any]) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        place.copy("outputs/lora")
        place.copy("outputs/.cells")
        path = place.folder / RUN / "scored.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return make
