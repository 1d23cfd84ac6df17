"""docs/continual.md: its commands compose, and it names every strategy and measure."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from forgetbench.cli import app
from forgetbench.core.options import options
from forgetbench.tables.continual_run import MEASURES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/continual.md").read_text("utf-8")
COMMANDS = [line.strip() for line in TEXT.splitlines() if line.startswith("    forgetbench ")]


@pytest.mark.parametrize("command", [one for one in COMMANDS if " report " not in one and " run=" not in one])
def test_a_command_composes_as_written(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    app([*shlex.split(command)[1:], "--cfg"], standalone_mode=False)
    assert "stages:" in capsys.readouterr().out


def test_every_strategy_and_measure_is_named() -> None:
    rows = set(re.findall(r"^\| `?(\w+)`? \|", TEXT, flags=re.MULTILINE))
    assert {*options("strategy"), *MEASURES} <= rows
