"""Terminals and pipes that lack letters: nothing ends a command, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from forgetbench.core.paths import shipped

SETTINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C": {"LC_ALL": "C", "LANG": "C"},
}


def run_command(environment: str, folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    variables = {**os.environ, **SETTINGS[environment], "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "forgetbench", *words]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, check=False)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """A set whose name and title have letters of other scripts."""
    content = yaml.safe_load((shipped("data_manifests") / "fashion_naming.yaml").read_text("utf-8"))
    content |= {"name": "測試", "title": "Größe ± [bold]实验[/bold] …"}
    (tmp_path / "data_manifests").mkdir()
    (tmp_path / "data_manifests" / "測試.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), "utf-8")
    return tmp_path


@pytest.mark.parametrize("environment", SETTINGS)
def test_a_terminal_without_unicode_ends_no_command(environment: str, sets: Path) -> None:
    shown = run_command(environment, sets, "data", "show", "測試")
    assert shown.returncode == 0, shown.stderr
    assert b"Traceback" not in shown.stderr
    assert b"[bold]" in shown.stdout
    if environment == "ascii":
        assert rb"Gr\xf6\xdfe +-" in shown.stdout
        shown.stdout.decode("ascii")


def test_json_is_lossless_in_ascii(sets: Path) -> None:
    shown = run_command("ascii", sets, "data", "list", "--json")
    assert shown.returncode == 0, shown.stderr
    assert "測試" in {row["name"] for row in json.loads(shown.stdout.decode("ascii"))}


def test_a_refusal_with_other_letters_is_one_message(tmp_path: Path) -> None:
    refused = run_command("ascii", tmp_path, "finetune", "data=größe")
    assert refused.returncode == 2
    assert b"Traceback" not in refused.stderr
    assert b"has no option" in refused.stderr
