"""The page on servers: its commands compose, and its tables name what there is."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from forgetbench.cli import app
from forgetbench.config import Engine, EngineConfig
from forgetbench.core.options import options
from forgetbench.serving.comparison import ComparisonResult

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "serving.md").read_text("utf-8")
COMMANDS = [line.strip() for line in TEXT.splitlines() if re.match(r"    forgetbench (eval-matrix|sweep) ", line)]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_composes_as_written(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not app([*shlex.split(command)[1:], "--cfg"], standalone_mode=False)


def test_every_engine_is_an_option_and_is_named() -> None:
    assert options("engine") == sorted(Engine)
    assert [name for name in Engine if f"| `{name}` |" not in TEXT] == []


def test_every_column_of_engine_csv_is_explained() -> None:
    table = TEXT.partition("| column of `engine.csv` | |")[2].partition("\n\n")[0]
    names = set(re.findall(r"`(\w+)`", table))
    assert names == {field.name for field in fields(ComparisonResult)} | {"tolerance", "reload"}


def test_settings_that_the_page_names_are_there() -> None:
    known = {field.name for field in fields(EngineConfig)}
    assert {name for name in re.findall(r"`engine\.(\w+)", TEXT) if name not in {"csv", "log"}} <= known
