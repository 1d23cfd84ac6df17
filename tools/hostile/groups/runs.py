"""Runs: run.json, a checkpoint's meta.json, tables, folders."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.hostile.case import Case, Ends, Place
from tools.hostile.model_files import Make, deep, setting, with_edit

_RUN, _META = "run.json", "checkpoints/step_000002/meta.json"
_LORA = "outputs/lora"
_EXPORT = ("export", _LORA, "out", "--adapter")
_SHOW = ("show", _LORA)


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, content in _CONTENTS.items():
        yield Case(f"run.json: {what}", _SHOW, _with(_RUN, content), says=(_RUN,))
        yield Case(f"meta.json: {what}", _EXPORT, _with(_META, content), says=("meta.json",))
    for what, (key, value) in _RUNS.items():
        make = with_edit(_RUN, setting(key, value), _LORA, _LORA)
        yield Case(f"run.json: {what}", _EXPORT, make, says=(_LORA,))
    for what, (key, value) in _ODD_RUNS.items():
        make = with_edit(_RUN, setting(key, value), _LORA, _LORA)
        yield Case(f"run.json: {what}", _EXPORT, make, Ends.either)
    for what, (key, value) in _METAS.items():
        make = with_edit(_META, setting(key, value), _LORA, _LORA)
        yield Case(f"meta.json: {what}", _EXPORT, make, says=("step_000002",))
    for what, content in _TABLES.items():
        for name, command in _READERS.items():
            yield Case(f"{name}: {what}", command, _with(name, content), says=(name,))
    for what, arrange in _FOLDERS.items():
        yield Case(f"folder: {what}", _EXPORT, _arranged(arrange), says=(_LORA,))
    for what, arrange in _FINE_FOLDERS.items():
        yield Case(f"folder: {what}", _EXPORT, _arranged(arrange), Ends.works)


_CONTENTS: dict[str, bytes | str] = {
    "null": "null",
    "a list": "[]",
    "a text": '"run"',
    "an empty object": "{}",
    "no JSON": "{config}",
    "cut short": '{"config": {"name": "lo',
    "10,000 levels": deep(),
    "a number of 5,000 digits": '{"step": ' + "9" * 5000 + "}",
    "UTF-16": '{"config": {}}'.encode("utf-16"),
    "no text": b"\x80\x04\x95",
    "empty": b"",
}
_RUNS: dict[str, tuple[str, object]] = {
    "a configuration that is null": ("config", None),
    "a configuration that is a list": ("config", []),
    "a model that is a text": ("config.model", "tiny"),
    "a path of the model that is null": ("config.model.path", None),
    "data that are a text": ("config.data", "fashion_naming"),
    "no stages": ("config.data.stages", []),
    "stages that are texts": ("config.data.stages", ["fashion_naming"]),
    "a method that is null": ("config.method", None),
    "a method of an unknown class": ("method_class", "Magic"),
    "a method's class that is a list": ("method_class", ["LoRA"]),
    "a rank that is a text": ("config.method.rank", "eight"),
    "another rank than the tensors": ("config.method.rank", 4),
    "a seed that is a text": ("config.seed", "lucky"),
    "a recipe that is a list": ("config.recipe", []),
    "digests that are a text": ("data_digests", "abc"),
    "a digest of the model that is null": ("model_digest", None),
    "another model's digest": ("model_digest", "0" * 64),
    "labels that are a text": ("labels", "shirt"),
    "an audit that is a list": ("audit", []),
    "an audit whose label is a number": ("audit.label", 5),
    "an audit whose parts are a list": ("audit.parts", []),
    "an environment that is a text": ("environment", "torch"),
    "a version that is a text": ("data_digest_version", "2"),
    "a key of tomorrow": ("of_tomorrow", 1),
    "no audit": ("audit", ...),
}
_ODD_RUNS: dict[str, tuple[str, object]] = {
    "a path of the model that is a number": ("config.model.path", 5),
    "a model that is not there": ("config.model.path", "nowhere"),
    "a method without a name": ("config.method.name", ...),
    "targets that are not there": ("config.method.targets", ["query_of_another_model"]),
    "a seed beyond 64 bits": ("config.seed", 10**30),
    "parts that are not there": ("config.recipe.parts", ["heart"]),
    "an interpolation": ("config.name", "${oc.env:HF_TOKEN}"),
    "an interpolation that leads to itself": ("config.name", "${name}"),
}
_METAS: dict[str, tuple[str, object]] = {
    "no step": ("step", ...),
    "a step that is a text": ("step", "two"),
    "a step that is null": ("step", None),
    "a step that is true": ("step", True),
    "another step": ("step", 3),
    "a negative step": ("step", -2),
    "a step of 200 digits": ("step", 10**200),
    "no digest": ("delta_digest", ...),
    "a digest that is null": ("delta_digest", None),
    "a digest of others": ("delta_digest", "0" * 64),
    "no method": ("method", ...),
    "a method that is a text": ("method", "lora"),
    "another scale": ("method.alpha", 99.0),
    "a variant above": ("variant", "../../x"),
    "a variant that is a list": ("variant", ["a"]),
    "a variant of an escape sequence": ("variant", "\x1b[31m"),
}
_TABLES: dict[str, bytes | str] = {
    "a line": "run\n",
    "no table": "<html></html>",
    "a table of others": "a,b,c\n1,2,3\n",
    "cut short": "run,model,target,checkpoint,variant,meth",
    "UTF-16": "run,step\nlora,1\n".encode("utf-16"),
    "no text": b"\x80\x04\x95\x00\xff",
    "zeros": bytes(4096),
    "a quote that is not closed": 'run,step\n"lora,1\n',
    "rows of other lengths": "run,step\nlora,1,2,3\nlora\n",
    "a hundred thousand columns": ",".join(f"c{number}" for number in range(100_000)) + "\n",
}
_READERS = {
    "scores.csv": ("compare", _LORA),
    "matrix.csv": ("export", _LORA, "out", "--adapter"),
    "summary.csv": ("report", _LORA),
    "train.csv": ("report", _LORA),
}


def _with(name: str, content: bytes | str) -> Make:
    def make(place: Place) -> None:
        place.copy(_LORA)
        place.copy("outputs/.cells")
        place.write(f"{_LORA}/{name}", content)

    return make


def _arranged(arrange: Callable[[Path], object]) -> Make:
    def make(place: Place) -> None:
        arrange(place.copy(_LORA))

    return make


def _last(folder: Path) -> Path:
    return folder / "checkpoints/step_000002"


def _copied(folder: Path) -> None:
    shutil.copytree(_last(folder), folder / "checkpoints/step_000009")


def _in_place_of(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def arrange(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return arrange


_FOLDERS: dict[str, Callable[[Path], object]] = {
    "no run.json": lambda folder: (folder / _RUN).unlink(),
    "run.json is a folder": _in_place_of(_RUN, Path.mkdir),
    "run.json is a FIFO": _in_place_of(_RUN, os.mkfifo),
    "run.json is a link to itself": _in_place_of(_RUN, lambda path: path.symlink_to(_RUN)),
    "meta.json is a folder": _in_place_of(_META, Path.mkdir),
    "meta.json is a FIFO": _in_place_of(_META, os.mkfifo),
    "no meta.json": lambda folder: (folder / _META).unlink(),
    "no tensors": lambda folder: (_last(folder) / "delta.safetensors").unlink(),
    "tensors that are a FIFO": _in_place_of("checkpoints/step_000002/delta.safetensors", os.mkfifo),
    "checkpoints are a file": _in_place_of("checkpoints", lambda path: path.write_text("text")),
    "a checkpoint that was renamed": lambda folder: _last(folder).rename(folder / "checkpoints/step_000005"),
    "a copy of a checkpoint as another step": _copied,
}
_FINE_FOLDERS: dict[str, Callable[[Path], object]] = {
    "a checkpoint that is a file": lambda folder: (folder / "checkpoints/step_000009").write_text("text"),
    "a folder of another name": lambda folder: (folder / "checkpoints/best").mkdir(),
    "a folder of a step in words": lambda folder: (folder / "checkpoints/step_last").mkdir(),
    "a copy under a name of its own": lambda folder: shutil.copytree(
        _last(folder), folder / "checkpoints/copy of step_000002"
    ),
    "a note": lambda folder: (folder / "notes.txt").write_text(json.dumps("note")),
}
