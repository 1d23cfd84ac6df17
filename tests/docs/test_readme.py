"""README.md: every command in it composes as written, and every file and link it names is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from forgetbench.cli import app
from forgetbench.cli.help import COMMAND_GROUPS, EXAMPLES
from forgetbench.core.errors import BAD_INPUT

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text("utf-8")
MANIFEST = """\
source: {kind: jsonl}
splits: {train: {files: [train.jsonl]}, test: {files: [test.jsonl]}}
image_domains: [mine]
text_tasks: [naming]
"""


def commands() -> list[str]:
    lines = [line.strip() for line in TEXT.splitlines() if line.startswith("    forgetbench ")]
    return [line.partition("  #")[0].strip() for line in lines]


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 8


@pytest.mark.parametrize("command", commands())
def test_a_command_composes_as_written(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_manifests").mkdir()
    (tmp_path / "data_manifests/my_set.yaml").write_text(MANIFEST)
    words = shlex.split(command)[1:]
    name = next(name for name in (" ".join(words[:2]), words[0]) if name in EXAMPLES)
    if COMMAND_GROUPS.get(name, ("data",)):
        app([*words, "--cfg"], standalone_mode=False)
        assert "seed" in capsys.readouterr().out
    else:  # it composes nothing, and its flags are checked before it looks for the folder
        assert app(words, standalone_mode=False) == BAD_INPUT
        assert re.search("is not a folder|is not a file|does not exist|holds no run", capsys.readouterr().err)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("target", re.findall(r"\]\(([\w./]+)\)", TEXT))
def test_a_linked_file_exists(target: str) -> None:
    assert (ROOT / target).exists()


@pytest.mark.parametrize("target", re.findall(r"`make ([\w-]+)`|^    make ([\w-]+)", TEXT, re.MULTILINE))
def test_a_named_make_target_exists(target: tuple[str, str]) -> None:
    assert f"\n{target[0] or target[1]}:" in (ROOT / "Makefile").read_text("utf-8")
