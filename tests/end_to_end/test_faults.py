"""A command that is killed, interrupted or refused at a file operation ends in the same bytes when given again."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.faults.cases import CASES
from tools.faults.compare import contents, difference

ROOT = Path(__file__).parents[2]


def tried(*arguments: str, timeout_s: float) -> dict[str, list[int]]:
    """Operations, then tries per fault, then how many ended wrongly, by command; all of them right."""
    command = [sys.executable, "-m", "tools.faults", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| (\w+) \|((?: \d+ \|)+)$", done.stdout, re.MULTILINE)
    return {name: [int(count) for count in counts.split("|")[:-1]] for name, counts in rows}


def test_training_and_export_survive_a_kill_and_a_full_disk_at_some_file_operations() -> None:
    arguments = ("finetune", "export", "--fault", "kill", "full", "--every", "20", "--first", "8")
    found = tried(*arguments, timeout_s=500)
    assert found.keys() == {"finetune", "export", "all"}
    for operations, kills, _, full, _, wrong in found.values():
        assert operations > kills > 0
        assert (full > 0, wrong) == (True, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.is_listed])
def test_each_command_survives_each_fault_at_file_operations_of_every_kind(name: str) -> None:
    [operations, *tries, wrong] = tried(name, "--every", "20", timeout_s=3000)[name]
    assert min(tries) >= 1
    assert operations > max(tries)
    assert wrong == 0


def test_a_leftover_a_lack_and_a_difference_are_told(tmp_path: Path) -> None:
    expected, found = tmp_path / "expected", tmp_path / "found"
    for folder in (expected, found):
        folder.mkdir()
        (folder / "scores.csv").write_text(f"value,seconds\n1,{folder.name}\n")
    (expected / "lacking").touch()
    assert difference(contents(expected), contents(found)) == "lacks lacking"
    (found / "lacking").touch()
    assert difference(contents(expected), contents(found)) == ""
    (found / ".x.tmp").touch()
    (found / "scores.csv").write_text("value,seconds\n2,3\n")
    assert difference(contents(expected), contents(found)) == "leftover .x.tmp; differs scores.csv"
