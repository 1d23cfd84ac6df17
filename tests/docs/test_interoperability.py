"""docs/interoperability.md: its commands are as the command line takes them, and it names every tracker and method."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from forgetbench.cli import app
from forgetbench.config import Tracker
from forgetbench.core.errors import BAD_INPUT
from forgetbench.methods.lora import LoRA
from forgetbench.methods.registry import SCHEMAS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/interoperability.md").read_text("utf-8")
COMMANDS = [line.strip() for line in TEXT.splitlines() if line.startswith("    forgetbench ")]
MANIFEST = """\
source: {kind: jsonl}
splits: {train: {files: [train.jsonl]}, test: {files: [test.jsonl]}}
image_domains: [mine]
text_tasks: [naming]
"""


@pytest.mark.parametrize("command", [one for one in COMMANDS if " run=" not in one])
def test_a_command_is_taken_as_written(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_manifests").mkdir()
    (tmp_path / "data_manifests/my_set.yaml").write_text(MANIFEST)
    words = shlex.split(command)[1:]
    if words[0] == "export":
        assert app(words, standalone_mode=False) == BAD_INPUT
        assert "is not a folder" in capsys.readouterr().err
    else:
        app([*words, "--cfg"], standalone_mode=False)
        assert "seed" in capsys.readouterr().out


def test_every_tracker_and_every_method_with_adapters_is_named() -> None:
    adapters = {
        key.partition("/")[2] for key, one in SCHEMAS.items() if isinstance(one, type) and issubclass(one, LoRA)
    }
    assert adapters
    assert [name for name in [*Tracker, *adapters] if f"`{name}`" not in TEXT] == []
