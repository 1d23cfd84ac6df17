"""What is wrong with a budget of forgetting is said before a model is loaded, each with its key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from forgetbench.compose.checks.guard import guard_problems
from forgetbench.config import (
    DataConfig,
    Engine,
    EngineConfig,
    FinetuneConfig,
    GuardConfig,
    MatrixConfig,
    ModelConfig,
    RecipeConfig,
    StageConfig,
    SweepConfig,
    Training,
)
from forgetbench.data.catalogue import Catalogue
from forgetbench.methods.base import Method
from forgetbench.runs.guard import with_guarded_sets

WHOLE = GuardConfig(max_loss=2.0, datasets=["digits_naming", "emoji_category"])
SHARED: dict[str, Any] = {
    "name": "run",
    "model": ModelConfig(path="embedded:tiny"),
    "data": DataConfig(stages=[StageConfig(set="fashion_naming")]),
    "recipe": RecipeConfig(lr=1e-4, parts=["language"], steps=100),
    "method": Method(),
}
RUN = FinetuneConfig(**SHARED)
MATRIX = MatrixConfig(datasets=["fashion_naming", "fashion_shifted", "digits_naming", "fashion_probe", "emoji_caption"])
SWEEP = SweepConfig(**SHARED, matrix=MATRIX)


def problems(config: FinetuneConfig) -> list[tuple[str, str]]:
    return [(problem.key, problem.message) for problem in guard_problems(config, Catalogue())]


def test_a_whole_guard_and_none_have_no_problem() -> None:
    assert problems(replace(RUN, guard=WHOLE)) == []
    assert problems(RUN) == []


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({"max_loss": -1.0}, "max_loss", "-1 is no loss in points"),
        ({"max_loss": 100.0}, "max_loss", "100 is no loss in points"),
        ({"max_loss": None}, "datasets", "given without guard.max_loss"),
        ({"items": 1}, "items", "1 items for 2 datasets"),
        ({"items": 0}, "items", "0 is too small"),
        ({"batch_size": 0}, "batch_size", "0 is too small"),
        ({"every": 0}, "every", "0 is too small"),
        ({"every": 101}, "every", "more than the 100 steps"),
        ({"datasets": None}, "datasets", "missing; name what may not be forgotten"),
        ({"datasets": []}, "datasets", "nothing is asked"),
        ({"datasets": ["digits_naming", "digits_naming"]}, "datasets", "listed 2 times"),
        ({"datasets": ["fashion_naming"]}, "datasets", "is what the run is to learn"),
        ({"datasets": ["nothing"]}, "datasets", "no dataset manifest named 'nothing'"),
        ({"datasets": ["general"]}, "datasets", "has no evaluation split"),
        ({"datasets": ["emoji_caption_cider"]}, "datasets", "is no share of 1"),
    ],
)
def test_each_contradiction_is_named(changes: dict[str, Any], key: str, expected: str) -> None:
    ((wrong_key, message),) = problems(replace(RUN, guard=replace(WHOLE, **changes)))
    assert wrong_key == f"guard.{key}"
    assert expected in message


def test_a_run_that_is_not_trained_here_takes_no_budget() -> None:
    trained = problems(replace(RUN, guard=WHOLE, run="outputs/other"))
    assert "is trained already" in dict(trained)["guard.max_loss"]
    untrained = replace(RUN.data, training=Training.none)
    assert "trains nothing" in dict(problems(replace(RUN, guard=WHOLE, data=untrained)))["guard.max_loss"]


def test_a_sweep_that_is_scored_by_a_server_takes_no_budget() -> None:
    served = replace(SWEEP, guard=WHOLE, engine=EngineConfig(name=Engine.vllm))
    assert "engine=vllm would score all of it again" in dict(problems(served))["guard.max_loss"]


def test_a_sweep_asks_its_matrix_outside_the_quadrant_of_the_target() -> None:
    guarded = replace(SWEEP, guard=GuardConfig(max_loss=2.0))
    assert problems(guarded) == []
    assert with_guarded_sets(guarded, Catalogue()).guard.datasets == ["digits_naming", "emoji_caption"]
    assert with_guarded_sets(SWEEP, Catalogue()) is SWEEP
    target_only = replace(guarded, matrix=replace(MATRIX, datasets=["fashion_naming"]))
    assert "nothing is asked" in dict(problems(target_only))["guard.datasets"]
