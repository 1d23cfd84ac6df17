"""What a shell completes: commands, keys, and after `=` options and names; nothing heavy is imported for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.cli.completion import completions
from forgetbench.core.options import options


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "before", "typed", "expected"),
    [
        ("finetune", [], "recipe=full", ["recipe=full_high_lr", "recipe=full_low_lr"]),
        ("finetune", [], "recipe.sched", ["recipe.schedule="]),
        ("finetune", [], "recipe.schedule=c", ["recipe.schedule=cosine", "recipe.schedule=constant"]),
        ("finetune", [], "recipe.gradient_checkpointing=", ["true", "false"]),
        ("finetune", [], "matrix.li", []),
        ("eval-matrix", [], "matrix.li", ["matrix.limit="]),
        ("finetune", ["recipe", "="], "full", ["full_high_lr", "full_low_lr"]),
        ("models plan", ["model"], "=", options("model")),
        ("show", [], "recipe", []),
    ],
)
def test_overrides_are_completed(command: str, before: list[str], typed: str, expected: list[str]) -> None:
    completed = completions(command, before, typed)
    assert [word.removeprefix("recipe.gradient_checkpointing=") for word in completed] == expected


def test_sets_of_your_own_are_completed(elsewhere: Path) -> None:
    (elsewhere / "data_manifests").mkdir()
    (elsewhere / "data_manifests/my_set.yaml").write_text("")
    assert completions("finetune", [], "data=my") == ["data=my_set"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["forgetbench", "fine"], "finetune"),
        (["forgetbench", "data", "show", "fashion_know"], "fashion_knowledge"),
        (["forgetbench", "finetune", "model", "=", "smolvlm_"], "smolvlm_256m"),
    ],
)
def test_bash_is_answered_without_torch(line: list[str], expected: str) -> None:
    code = (
        "import sys\nfrom forgetbench.cli import main\n"
        "try: main()\nfinally: assert not {'torch', 'hydra', 'omegaconf'} & set(sys.modules)"
    )
    asked = {"_FORGETBENCH_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(line), "COMP_CWORD": str(len(line) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **asked}
    )
    assert done.stdout.split() == [expected]
    assert done.stderr == ""


def test_the_bare_command_teaches_the_first_three_commands() -> None:
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 0
    steps = done.stdout.partition("First steps:")[2].strip().splitlines()[:3]
    assert [step.split()[1] for step in steps] == ["doctor", "sweep", "report"]
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("words", [[], ["finetune"], ["data"], ["data", "show"]])
def test_h_is_help(words: list[str]) -> None:
    short, long = (CliRunner().invoke(app, [*words, flag]) for flag in ("-h", "--help"))
    assert (short.exit_code, short.stdout) == (0, long.stdout)
