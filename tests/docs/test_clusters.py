"""docs/clusters.md: its commands compose, its scripts are shell, and it names every launcher, key and variable."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.compose.launchers import PASSED_ON
from forgetbench.core.options import options
from forgetbench.core.paths import shipped

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/clusters.md").read_text("utf-8")
COMMANDS = sorted({line.strip() for line in TEXT.splitlines() if line.startswith("    forgetbench ")})
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PLUGINS = {"submitit_local": "submitit"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_composes_as_written(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)[1:]
    if launcher := re.search(r"launcher=(\w+)", command):
        plugin = f"hydra_plugins.hydra_{PLUGINS.get(launcher[1], launcher[1])}_launcher"
        if importlib.util.find_spec(plugin) is None:
            pytest.skip(f"{plugin} is not installed")
    if words[0] in {"show", "report"}:  # they compose nothing
        shown = CliRunner().invoke(app, [words[0], "--help"])
        assert shown.exit_code == 0
        assert [word for word in words[2:] if word not in shown.stdout] == []
    else:
        assert not app([*words, "--cfg"], standalone_mode=False)


def test_scripts_are_shell() -> None:
    scripts = [text for kind, text in BLOCKS if kind == "bash"]
    assert len(scripts) >= 3
    for script in scripts:
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0, script


def test_own_launcher_of_the_page_composes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.chdir(tmp_path)
    [text] = [text for kind, text in BLOCKS if kind == "yaml"]
    path = Path("conf/launcher/my_cluster.yaml")
    path.parent.mkdir(parents=True)
    path.write_text(text, "utf-8")
    assert not app(["sweep", "launcher=my_cluster", "--cfg"], standalone_mode=False)


def test_every_launcher_and_variable_is_named() -> None:
    assert {f"| `{name}` |" for name in options("launcher")} <= set(re.findall(r"^\| `\w+` \|", TEXT, re.MULTILINE))
    table = TEXT.partition("## Environment variables")[2]
    assert [name for name in PASSED_ON if f"`{name}`" not in table] == []


def test_presets_of_slurm_are_those_of_the_file() -> None:
    preset = yaml.safe_load((shipped("conf") / "launcher/submitit.yaml").read_text("utf-8"))["hydra"]["launcher"]
    lines = re.findall(r"^\| (`timeout_min.*|`gpus_per.*|`array.*|`max_num.*|`signal.*) \|$", TEXT, re.MULTILINE)
    assert len(lines) == 5
    for line in lines:
        names, _, values = (cell.strip() for cell in line.split("|"))
        keys = re.findall(r"`(\w+)`", names)
        assert keys, line
        assert [str(preset[key]) for key in keys] == values.split(", ")
