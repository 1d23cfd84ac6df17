"""A field that decides no result is in no folder's name, is not compared, and does not tell two recipes apart."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest

from forgetbench.compose import compose, overrides
from forgetbench.config import FinetuneConfig, MatrixConfig, SweepConfig
from forgetbench.config.result import NO_RESULT, deciding, without_result
from forgetbench.core.errors import UserError
from forgetbench.runs import run as runs
from forgetbench.runs.recipes import named
from forgetbench.runs.run import Run, check_same
from forgetbench.training.data_digest import DIGEST_VERSION
from tests.support.answered import KEEPS, answered_run

FEW = {name: KEEPS[name] for name in ("fashion_naming", "fashion_knowledge")}
ELSEWHERE = {
    "tracker": "tensorboard",
    "threads": "2",
    "resume_minutes": "0.5",
    "outputs": "elsewhere",
    "recipe.reuse_features": "false",
    "recipe.gradient_checkpointing": "true",
}


@dataclass
class NewFinetuneConfig(FinetuneConfig):
    """A configuration that has got two new fields."""

    colour: str = field(default="red", metadata=NO_RESULT)
    depth: int = 1


@dataclass
class NewSweepConfig(NewFinetuneConfig):
    matrix: MatrixConfig = field(default_factory=MatrixConfig, metadata=NO_RESULT)


def audited(folder: Path, config: FinetuneConfig) -> Run:
    return Run(
        folder, config, [], [[]], "digest", {"label": "", "trainable": 0, "total": 0, "parts": {}}, {}, DIGEST_VERSION
    )


def test_a_new_field_marked_so_leaves_names_comparison_and_pooling_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overrides, "SweepConfig", NewSweepConfig)
    assert {"colour", "matrix.limit"} <= set(overrides.left_out_of_names("data"))
    assert "depth" not in overrides.left_out_of_names("data")
    config = compose(FinetuneConfig, ["name=mine"])
    settings = runs.settings_of(config)
    old, new = settings | {"colour": "red", "depth": 1}, settings | {"colour": "blue", "depth": 1}
    # What check_same compares and what seeds are pooled by is this and nothing else.
    assert deciding(NewFinetuneConfig, old) == deciding(NewFinetuneConfig, new)
    assert deciding(NewFinetuneConfig, old) != deciding(NewFinetuneConfig, new | {"depth": 2})


@pytest.mark.parametrize("key", sorted(ELSEWHERE))
def test_a_marked_setting_is_in_no_name_and_not_compared(key: str, tmp_path: Path) -> None:
    plain, other = compose(FinetuneConfig, []), compose(FinetuneConfig, [f"{key}={ELSEWHERE[key]}"])
    assert other.name == plain.name
    audited(tmp_path, plain).write()
    check_same(tmp_path, other, [])
    with pytest.raises(UserError, match=r"differs in: recipe\.warmup\."):
        check_same(tmp_path, compose(FinetuneConfig, ["recipe.warmup=0.5"]), [])


@pytest.mark.parametrize("key", ["tracker", "recipe.reuse_features", "recipe.gradient_checkpointing"])
def test_seeds_that_differ_in_a_marked_setting_are_pooled(key: str, tmp_path: Path) -> None:
    first = answered_run(tmp_path, "run--seed-0", FEW, seed=0)
    second = answered_run(tmp_path, "run--seed-1", FEW, f"{key}={ELSEWHERE[key]}", seed=1)
    assert [run.recipe for run in named([first, second])] == ["run", "run"]
    other = answered_run(tmp_path, "run--seed-2", FEW, "recipe.warmup=0.5", seed=2)
    assert [run.recipe for run in named([first, other])] == ["run--seed-0", "run--seed-2"]


def test_a_marked_setting_in_the_recipe_of_a_stage_does_not_count_either() -> None:
    def settings(recipe: dict[str, Any]) -> dict[str, Any]:
        return {"data": {"stages": [{"set": "a", "recipe": recipe}]}, "recipe": {"warmup": 0.1}}

    plain = deciding(FinetuneConfig, settings({}))
    assert deciding(FinetuneConfig, settings({"gradient_checkpointing": True})) == plain
    assert deciding(FinetuneConfig, settings({"warmup": 0.5})) != plain


def test_whatever_is_scored_makes_no_other_point_of_a_sweep() -> None:
    assert {"matrix", *(f"matrix.{field.name}" for field in fields(MatrixConfig))} <= set(without_result(SweepConfig))
    assert "matrix.representation.images" in without_result(SweepConfig)
