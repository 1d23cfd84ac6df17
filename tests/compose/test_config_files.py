"""What a configuration file of somebody else may say, and what no configuration may make Hydra run."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetbench import compose
from forgetbench.config import FinetuneConfig, SweepConfig
from forgetbench.core.errors import UserError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, group: str, text: str) -> None:
    path = folder / f"conf/{group}/mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_file_may_build_on_others_and_refer_to_keys(folder: Path) -> None:
    write(folder, "recipe", "defaults: [lora, _self_]\nsteps: ${recipe.batch_size}\nbatch_size: 4\n")
    assert compose.compose(FinetuneConfig, ["recipe=mine"]).recipe.steps == 4


@pytest.mark.parametrize(
    ("group", "text", "key"),
    [
        ("recipe", "lr: ${oc.env:HOME}", "lr"),
        ("recipe", "# @package hydra.job\nchdir: true", "hydra.job"),
        ("recipe", "defaults: [/recipe/lora@hydra.callbacks.x]", "defaults"),
        ("recipe", "defaults: [../../secret]", "defaults"),
        ("strategy", "# @package _global_\nhydra: {run: {dir: x}}", "hydra.run"),
        ("strategy", "# @package _global_\ndefaults: [override /launcher: joblib]", "defaults"),
        ("strategy", "# @package _global_\noutputs: ../x", "outputs"),
        ("strategy", "# @package _global_\nmodel: {trust_remote_code: true}", "trust_remote_code"),
        ("strategy", "# @package _global_\nhydra: {callbacks: {x: {_target_: os.system}}}", "hydra.callbacks"),
    ],
)
def test_a_file_that_says_more_is_refused_by_its_name_and_key(folder: Path, group: str, text: str, key: str) -> None:
    write(folder, group, text)
    with pytest.raises(UserError, match=rf"conf/{group}/mine.yaml: .*{key}"):
        compose.compose(FinetuneConfig, [f"{group}=mine"])


def test_a_sweep_of_ones_own_may_set_the_sweepers_parameters(folder: Path) -> None:
    write(folder, "sweep", "# @package _global_\nhydra: {sweeper: {params: {seed: '0,1'}}}")
    assert compose.composed_yaml(SweepConfig, ["sweep=mine"]).count("# point:") == 2
    write(folder, "sweep", "# @package _global_\nhydra: {sweeper: {custom_search_space: os.system}}")
    with pytest.raises(UserError, match="custom_search_space"):
        compose.composed_yaml(SweepConfig, ["sweep=mine"])


@pytest.mark.parametrize(
    "override",
    [
        "+hydra.callbacks.x._target_=pandas.read_pickle",
        "hydra.launcher._target_=os.system",
        "hydra.sweeper._target_=os.system",
        "+hydra.job_logging.handlers.x={class: os.system}",
        "+hydra.job_logging.handlers.x={class: logging.StreamHandler, stream: 'ext://os.environ'}",
    ],
)
def test_no_class_is_made_that_is_neither_hydras_nor_a_plugins(override: str) -> None:
    with pytest.raises(UserError, match="no class or function that forgetbench runs"):
        compose.compose(FinetuneConfig, [override])


def test_the_command_line_reads_the_environment_but_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "scratch")
    monkeypatch.setenv("MY_API_KEY", "abcdefgh1234")
    assert compose.compose(FinetuneConfig, ["outputs=${oc.env:SCRATCH}"]).outputs == "scratch"
    for override in ("name=${oc.env:MY_API_KEY}", "name=x-abcdefgh1234", "+hydra.job.env_set.A=${oc.env:MY_API_KEY}"):
        with pytest.raises(UserError, match="MY_API_KEY"):
            compose.compose(FinetuneConfig, [override])


def test_a_stage_never_resolves_what_was_resolved_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "scratch")
    stages = "data.stages=[{set: fashion_naming, recipe: {mix: {data: ['\\${oc.env:SCRATCH}'], ratio: 0.5}}}]"
    with pytest.raises(UserError, match=r"\$\{oc.env:SCRATCH\}|'\$\{oc'|\$\{oc"):
        compose.compose(FinetuneConfig, [stages])
