"""README.md and docs/commands.md: every command composes as written, and none is missing."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from forgetbench.cli import app
from forgetbench.cli.help import COMMAND_GROUPS, EXAMPLES
from forgetbench.core.errors import BAD_INPUT
from forgetbench.core.options import options

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
GUIDE = (ROOT / "docs/commands.md").read_text("utf-8")
MANIFEST = """\
source: {kind: jsonl}
splits: {train: {files: [train.jsonl]}, test: {files: [test.jsonl]}}
image_domains: [mine]
text_tasks: [naming]
"""


def commands() -> list[str]:
    """Commands in blocks and tables; not those with an ellipsis for a file, nor `doctor`, which just runs."""
    text = f"{README}\n{GUIDE}"
    lines = re.findall(r"^    (forgetbench .*)$", text, re.MULTILINE) + re.findall(r"\| `(forgetbench .*?)` \|", text)
    found = dict.fromkeys(line.partition("  #")[0].strip() for line in lines)
    return [command for command in found if "..." not in command and " doctor" not in command]


def test_the_readme_is_short_and_has_commands() -> None:
    assert len(README.splitlines()) <= 180
    assert len(commands()) > 30


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


def test_the_page_of_commands_names_every_command_and_sweep() -> None:
    words = set(re.findall(r"`([\w -]+)`", GUIDE))
    assert [name for name in (*EXAMPLES, *options("sweep")) if name not in words] == []


@pytest.mark.parametrize("target", re.findall(r"`make ([\w-]+)`|^    make ([\w-]+)", README, re.MULTILINE))
def test_a_named_make_target_exists(target: tuple[str, str]) -> None:
    assert f"\n{target[0] or target[1]}:" in (ROOT / "Makefile").read_text("utf-8")
