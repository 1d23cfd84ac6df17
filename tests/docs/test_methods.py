"""docs/methods.md: its commands compose, and it names every method, setting and swept recipe."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from forgetbench.cli import app
from forgetbench.methods.operation import Operation
from forgetbench.methods.registry import SCHEMAS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/methods.md").read_text("utf-8")
METHODS = {key.partition("/")[2]: cls for key, cls in SCHEMAS.items() if key.startswith("method/")}


def commands() -> list[str]:
    return [line.strip() for line in TEXT.splitlines() if line.startswith("    forgetbench ")]


@pytest.mark.parametrize("command", commands())
def test_a_command_composes_as_written(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    app([*shlex.split(command)[1:], "--cfg"], standalone_mode=False)
    assert "seed" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_a_section_with_its_settings(name: str) -> None:
    sections = re.split(r"^### ", TEXT, flags=re.MULTILINE)
    own = [section for section in sections if f"`{name}`" in section.partition("\n")[0]]
    assert len(own) == 1
    inherited = {"name", *(one.name for one in dataclasses.fields(Operation))}
    if name == "mdgd_gm":
        inherited |= {one.name for one in dataclasses.fields(METHODS["mdgd"])}  # "and MDGD's"
    if name == "o_lora":
        inherited |= {one.name for one in dataclasses.fields(METHODS["lora"])}
    for one in dataclasses.fields(METHODS[name]):
        assert one.name in inherited or f"`{one.name}`" in own[0], one.name
