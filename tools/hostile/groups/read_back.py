"""Runs of somebody else: what run.json, meta.json, tables and links in a run's folder may make a command do."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tools.hostile.case import Case, Ends, Place

RUN = "outputs/lora"


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, changes in _SETTINGS.items():
        for verb in ("show", "score"):
            command = ("show", RUN) if verb == "show" else ("score", f"run={RUN}", *_MATRIX)
            yield Case(f"{verb}: run.json's {what}", command, settings(changes), Ends.either)
    for what, changes in _EVALUATED.items():
        yield Case(f"run.json's {what}", ("eval-matrix", f"run={RUN}", *_MATRIX), settings(changes), _ended(what))
    yield Case("run.json trusts code", _EVAL_AGAIN, _trusting, says=("run.json", "trust_remote_code"))
    yield Case("run.json trusts code, exported", ("export", RUN, "to"), _trusting, says=("trust_remote_code",))
    yield Case("run.json trusts code, edited", _EDIT, _trusting, says=("trust_remote_code",))
    for what, variant in _VARIANTS.items():
        yield Case(f"meta.json's variant is {what}", _SHOWN, _variant(variant), says=("meta.json",))
    for what, step in _STEPS.items():
        yield Case(f"meta.json's step is {what}", _SHOWN, _meta({"step": step}))
    for what, (make, command) in _LINKS.items():
        yield Case(f"a link: {what}", command, make, says=("link",))
    for what, make in _GOOD_LINKS.items():
        yield Case(f"a link: {what}", ("export", RUN, "to", "--adapter"), make, Ends.works)
    for what, cell in _CELLS.items():
        yield Case(f"scores.csv names the cell {what}", ("power", RUN), _cell(cell), Ends.either)
        yield Case(f"scores.csv names the cell {what}, compared", ("compare", RUN), _cell(cell))


_MATRIX = ("matrix=quick", "matrix.limit=4", "matrix.steps=[2]", "threads=1")
_EVAL_AGAIN = ("eval-matrix", f"run={RUN}", "matrix=quick", "matrix.limit=3", "matrix.steps=[2]", "threads=1")
_EDIT = ("finetune", "method=wise_ft", f"run={RUN}")
_SHOWN = ("export", RUN, "to", "--adapter")
_REFERENCE = "${oc.env:CANARY}"
_SETTINGS: dict[str, dict[str, Any]] = {
    "name is a resolver": {"name": _REFERENCE},
    "name is a path above": {"name": "../../pwned"},
    "strategy is a resolver": {"strategy": _REFERENCE},
    "strategy is an escape sequence": {"strategy": "\x1b]0;pwned\x07\x1b[31mred"},
    "outputs is elsewhere": {"outputs": "../outside"},
    "method is called by an escape sequence": {"method.name": "\x1b[2J"},
    "a model's path is a resolver": {"model.path": _REFERENCE},
    "a stage is a resolver": {"data.stages": [{"set": _REFERENCE}]},
    "a stage's recipe is a resolver": {"data.stages": [{"set": "fashion_naming", "recipe": {"lr": _REFERENCE}}]},
    "a mix is a resolver": {"recipe.mix": {"data": [_REFERENCE], "ratio": 0.5}},
    "prompt is of Hydra": {"model.system_prompt": "${hydra:runtime.cwd}"},
    "parts are a resolver": {"recipe.parts": ["${oc.env:HF_TOKEN}"]},
}
_EVALUATED: dict[str, dict[str, Any]] = {
    "manifests are a file": {"manifests": ["/etc/passwd"]},
    "manifests are elsewhere": {"manifests": ["../outside"]},
    "manifests are a resolver": {"manifests": [_REFERENCE]},
    "stage is a path": {"data.stages": [{"set": "../outside/secret"}]},
    "stage is an absolute path": {"data.stages": [{"set": "/etc/passwd"}]},
    "stage is a resolver": {"data.stages": [{"set": _REFERENCE}]},
    "stage's recipe is a resolver": {"data.stages": [{"set": "fashion_naming", "recipe": {"precision": _REFERENCE}}]},
    "mix is a path": {"recipe.mix": {"data": ["../outside/secret"], "ratio": 0.5}},
    "mix is a resolver": {"recipe.mix": {"data": [_REFERENCE], "ratio": 0.5}},
    "recipe is a target": {"recipe._target_": "os.system"},
    "method is another class": {"method._target_": "os.system"},
}
_VARIANTS = {
    "a path above": "x/../../pwned",
    "a path": "x/y",
    "absolute": "/elsewhere/pwned",
    "two dots": "..",
    "a resolver": _REFERENCE,
    "an escape sequence": "\x1b[31mred",
    "a line break": "a\nb",
    "a backslash": "a\\..\\b",
    "a list": ["a"],
    "an @": "@x/../../pwned",
}
_STEPS = {"negative": -1, "a text": "2", "a path": "../2", "huge": 10**30, "a list": [2], "true": True}
_CELLS = {
    "above": "../../outside/secret",
    "absolute": "/etc/passwd",
    "with a backslash": "..\\secret",
    "empty": "",
    "of blanks": "   ",
    "called by an escape sequence": "\x1b[31mred",
}


def _ended(what: str) -> Ends:
    return Ends.either if what.startswith("manifests") else Ends.refused


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def settings(changes: dict[str, Any]) -> Callable[[Place], None]:
    """A run whose run.json has other values at these dotted keys."""

    def change(content: dict[str, Any]) -> None:
        for key, value in changes.items():
            node = content["config"]
            *above, last = key.split(".")
            for name in above:
                node = node[name]
            node[last] = value

    def make(place: Place) -> None:
        place.copy("outputs")
        edited(place.folder / RUN / "run.json", change)

    return make


def _trusting(place: Place) -> None:
    settings({"model.path": "evil", "model.trust_remote_code": True})(place)
    place.copy("model", "evil")


def _meta(changes: dict[str, Any]) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        place.copy(RUN)
        edited(place.folder / RUN / "checkpoints/step_000002/meta.json", lambda content: content.update(changes))

    return make


def _variant(variant: Any) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        place.copy(RUN)
        checkpoints = place.folder / RUN / "checkpoints"
        shutil.copytree(checkpoints / "step_000002", checkpoints / "step_000002@x")
        edited(checkpoints / "step_000002@x/meta.json", lambda content: content.update(variant=variant))

    return make


def _linked(inside: str, copied: bool = True) -> Callable[[Place], None]:
    """The run with one of its folders moved outside, and a link in its place."""

    def make(place: Place) -> None:
        place.copy(RUN)
        path, target = place.folder / RUN / inside, place.outside / "moved"
        if path.exists() and copied:
            shutil.move(path, target)
        else:
            target.mkdir()
        path.symlink_to(target)

    return make


def _resume(place: Place) -> None:
    place.copy("outputs/plain")
    path = place.folder / "outputs/plain/resume"
    path.symlink_to(place.outside)
    shutil.rmtree(place.folder / "outputs/plain/checkpoints/step_000002")


_LINKS: dict[str, tuple[Callable[[Place], None], tuple[str, ...]]] = {
    "checkpoints, exported": (_linked("checkpoints"), _SHOWN),
    "checkpoints, scored": (_linked("checkpoints"), _EVAL_AGAIN),
    "a checkpoint, exported": (_linked("checkpoints/step_000002"), _SHOWN),
    "a checkpoint, scored": (_linked("checkpoints/step_000002"), _EVAL_AGAIN),
    "resume, trained on": (
        _resume,
        ("finetune", "name=plain", "recipe=full_low_lr", "recipe.steps=2", "recipe.batch_size=4", "threads=1"),
    ),
}


def _whole_run(place: Place) -> None:
    """The run's folder on another disk."""
    place.copy(RUN)
    shutil.move(place.folder / RUN, place.folder / "disk")
    (place.folder / RUN).symlink_to("../disk")


def _within(place: Place) -> None:
    place.copy(RUN)
    checkpoints = place.folder / RUN / "checkpoints"
    (checkpoints / "step_000001").rename(place.folder / RUN / "kept")
    (checkpoints / "step_000001").symlink_to("../kept")


_GOOD_LINKS = {"the whole run": _whole_run, "a checkpoint in the run": _within}


def _cell(cell: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        place.copy("outputs")
        path = place.folder / RUN / "scores.csv"
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        written = io.StringIO()
        writer = csv.DictWriter(written, rows[0].keys())
        writer.writeheader()
        writer.writerows(row | {"cell": cell} for row in rows)
        path.write_text(written.getvalue())

    return make
