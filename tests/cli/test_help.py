"""`--help`: every key of a command with what it means, and the datasets by group."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from forgetbench import config
from forgetbench.cli import app
from forgetbench.cli.help import LISTINGS, MIN_WIDTH
from forgetbench.cli.keys import MAX_DEFAULT, Key, keys
from forgetbench.core.dataset_groups import DatasetGroup, manifest_groups
from forgetbench.core.options import options

CONFIGS = ("FinetuneConfig", "EvalMatrixConfig", "ScoreConfig", "SweepConfig")
WITH_ALL_KEYS = [command for command, listing in LISTINGS.items() if listing.all_keys]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(command: str) -> str:
    return CliRunner().invoke(app, [*command.split(), "--help"]).stdout


def walked(kind: type, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Path, type and field of every key, read from the classes themselves."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint, path = hints[field.name], prefix + field.name
        (element,) = typing.get_args(hint) if typing.get_origin(hint) is list else (None,)
        nested = element or hint
        if dataclasses.is_dataclass(nested) and nested.__module__.startswith(config.__name__):
            if element:
                yield path, hint, field
            yield from walked(typing.cast(type, nested), f"{path}[]." if element else f"{path}.")
        else:
            yield path, hint, field


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_is_a_key_that_has_a_meaning(name: str) -> None:
    meanings = {key.path: key.meaning for key in keys(name)}
    assert list(meanings) == [path for path, _, _ in walked(getattr(config, name))]
    assert [path for path, meaning in meanings.items() if not meaning] == []


@pytest.mark.parametrize("name", CONFIGS)
def test_a_key_tells_its_members_and_its_default(name: str) -> None:
    meanings = {key.path: key.meaning for key in keys(name)}
    message = 0
    for path, hint, field in walked(getattr(config, name)):
        kinds = [
            kind for kind in (hint, *typing.get_args(hint)) if isinstance(kind, type) and issubclass(kind, StrEnum)
        ]
        for kind in kinds:
            assert ", ".join(kind) in meanings[path]
        has_one = field.default_factory is not dataclasses.MISSING
        default = field.default_factory() if has_one else field.default  # type: ignore[misc]
        if isinstance(default, list) and len(yaml.safe_dump(_plain(default), default_flow_style=True)) > MAX_DEFAULT:
            continue  # left to --cfg
        if isinstance(default, str | int | float | list) and default not in ("", []) and field.default != "???":
            written = meanings[path].rpartition("default ")[2].removesuffix("]")
            assert yaml.safe_load(written) == yaml.safe_load(yaml.safe_dump(_plain(default)))
            message += 1
    assert message >= 5


def _plain(default: object) -> object:
    if isinstance(default, list):
        return [_plain(element) for element in default]
    return str(default) if isinstance(default, StrEnum) else default


@pytest.mark.parametrize("command", WITH_ALL_KEYS)
def test_help_lists_every_key_once_the_common_ones_first(command: str) -> None:
    common, _, rest = shown(command).partition("\nMore keys:\n")
    listed = [re.findall(r"^    (\S+)", part, re.MULTILINE) for part in (common, rest)]
    every = {key.path for key in keys(LISTINGS[command].config)}
    first, then = [[word for word in words if word in every] for words in listed]
    assert set(first) == set(LISTINGS[command].common)
    assert sorted(first + then) == sorted(every)


@pytest.mark.parametrize("command", LISTINGS)
def test_every_common_key_is_one_of_the_commands_keys_and_is_shown(command: str) -> None:
    known, text = {key.path for key in keys(LISTINGS[command].config)}, shown(command)
    assert set(LISTINGS[command].common) <= known
    assert [path for path in LISTINGS[command].common if f"    {path}" not in text] == []


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("command", WITH_ALL_KEYS)
def test_keys_and_groups_fit_the_terminal(command: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = shown(command).partition("\nKeys ")[2].splitlines()
    assert MIN_WIDTH - 8 < max(map(len, lines)) <= min(columns, 100)


def test_fields_made_by_calls_are_read_with_default_and_docstring(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text('''
class Kind(StrEnum):
    one = "one"
    two = "two"
@dataclass
class Inner:
    n: int = setting(3, at_least=1)
    """How many."""
@dataclass
class Base:
    kind: Kind = field(default=Kind.two, metadata={"x": 1})
    """Which
    one."""
    bare: int | None = None
''')
    (tmp_path / "root.py").write_text('''
@dataclass
class Root(Base):
    inner: Inner = field(default_factory=Inner)
    names: list[str] = field(default_factory=lambda: ["a", "b"], metadata={})
    """Names."""
    many: list[Inner] = field(default_factory=list)
    """Inner ones."""
''')
    assert keys("Root", (tmp_path,)) == [
        Key("kind", "Which one. [one, two; default two]", ("one", "two")),
        Key("bare", ""),
        Key("inner.n", "How many. [default 3]"),
        Key("names", "Names. [default [a, b]]"),
        Key("many", "Inner ones."),
        Key("many[].n", "How many. [default 3]"),
    ]


def test_a_long_default_is_left_out(tmp_path: Path) -> None:
    text = "x" * (MAX_DEFAULT + 1)
    (tmp_path / "root.py").write_text(f'class Root:\n    a: str = "{text}"\n    """Long."""\n')
    assert keys("Root", (tmp_path,)) == [Key("a", "Long.")]


def test_datasets_are_grouped_and_curricula_left_to_data_list(elsewhere: Path) -> None:
    (elsewhere / "data_manifests").mkdir()
    (elsewhere / "data_manifests/mine.yaml").write_text("source: {root: x}\n")
    (elsewhere / "data_manifests/broken.yaml").write_text("source: {")
    text = shown("finetune").partition("\n  data:\n")[2]
    parts = re.findall(r"^    (\w+): (.*(?:\n      .*)*)", text, re.MULTILINE)
    lines = {title: listed.replace(",", " ").split() for title, listed in parts}
    assert lines["yours"] == ["broken", "mine"]
    assert "five_tasks_a" in lines["sequences"]
    groups = manifest_groups()
    assert set(lines["embedded"]) == {name for name, group in groups.items() if group is DatasetGroup.embedded}
    assert {"fashion_naming", "general"} <= set(lines["embedded"])
    assert "textvqa" in lines["public"]
    hidden = {name for name, group in groups.items() if group.by_role} | {"base_model", "base_words"}
    assert not hidden & {name for listed in lines.values() for name in listed}
    named = {name for title in ("yours", "embedded", "sequences", "public") for name in lines[title]}
    assert named | hidden == set(options("data"))
