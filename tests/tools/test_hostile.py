"""Damaged and hostile inputs: `python -m tools.hostile` is what anyone can run; here, a part of it and all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.hostile", *arguments], capture_output=True, text=True, check=False
    )


def test_each_fortieth_input_of_a_group_is_refused_in_one_message_or_understood() -> None:
    assert (result := ended("--every", "40")).returncode == 0, result.stdout


@pytest.mark.slow
def test_every_input_is_refused_in_one_message_or_understood() -> None:
    assert (result := ended("--jobs", "2")).returncode == 0, result.stdout


JUDGED = """
import sys
from pathlib import Path
import forgetbench.cli, os
from tools.hostile.case import Case, Ends
from tools.hostile.runner import run

def ends(how):
    forgetbench.cli.main = how
    return run(Case("x", ("x",), lambda place: None, Ends.either), Path(sys.argv[1]) / "scratch", Path()).verdict

def leaks(): print(os.environ["HF_TOKEN"])
def reads(): print(Path("../outside/secret.txt").read_text())
def keeps(): Path("report.html").write_text(os.environ["CANARY"])
def strays(): Path("../outside/pwned").touch()
def colours(): print(chr(27) + "[31m")
def raises(): {}["x"]
def refuses(): print("no"); sys.exit(2)
def is_silent(): sys.exit(2)
def fails(): sys.exit(1)
def dies(): os.abort()
def fills(): bytearray(4 * 2**30)
def works(): pass
for one in (leaks, reads, keeps, strays, colours, raises, refuses, is_silent, fails, dies, fills, works):
    print(one.__name__, ends(one), sep=": ")
"""


def test_the_runner_tells_every_way_to_end_wrongly(tmp_path: Path) -> None:
    finished = subprocess.run([sys.executable, "-c", JUDGED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines() == [
        "leaks: leak",
        "reads: leak",
        "keeps: leak into report.html",
        "strays: wrote outside",
        "colours: control characters",
        "raises: traceback",
        "refuses: refused",
        "is_silent: no message",
        "fails: exit code 1",
        "dies: killed by signal 6",
        "fills: memory",
        "works: works",
    ]
