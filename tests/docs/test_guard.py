"""docs/guard.md: its commands compose, its keys and columns are all there."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from forgetbench.cli import app
from forgetbench.config import GuardConfig
from forgetbench.tables.guard import DECISIONS, GUARD_COLUMNS

TEXT = (Path(__file__).parents[2] / "docs/guard.md").read_text("utf-8")
COMMANDS = [line.strip() for line in TEXT.splitlines() if line.startswith("    forgetbench ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_composes_as_written(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    app([*shlex.split(command)[1:], "--cfg"], standalone_mode=False)
    assert "max_loss: 5" in capsys.readouterr().out


def test_every_key_and_every_column_is_explained() -> None:
    words = set(re.findall(r"`([\w.]+)`", TEXT))
    assert {f"guard.{field.name}" for field in fields(GuardConfig)} <= words
    assert set(GUARD_COLUMNS) - {"run"} <= words
    assert all(f"`{one}`" in TEXT for one in DECISIONS)
