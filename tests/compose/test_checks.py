"""Contradictions in a config, each named with its key; pure functions, no Hydra."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from forgetbench.compose.checks import problems
from forgetbench.compose.checks.recipe import unused_mix
from forgetbench.config import (
    CheckpointConfig,
    DataConfig,
    EvalMatrixConfig,
    FinetuneConfig,
    MatrixConfig,
    MixConfig,
    ModelConfig,
    RecipeConfig,
    StageConfig,
    SweepConfig,
    Training,
)
from forgetbench.data.catalogue import Catalogue
from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA

GOOD = SweepConfig(
    name="run",
    model=ModelConfig(path="embedded:tiny"),
    data=DataConfig(stages=[StageConfig(set="target")]),
    recipe=RecipeConfig(lr=1e-4, parts=["language"]),
    method=Method(),
    matrix=MatrixConfig(datasets=["target"]),
)
DESCRIBED = "image_domains: [photos]\ntext_tasks: [naming]\n"
MANIFEST = f"{DESCRIBED}source: {{kind: jsonl}}\nsplits: {{train: {{files: [a]}}, test: {{files: [b]}}}}\n"

Change = Callable[[SweepConfig], object]


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    (tmp_path / "target.yaml").write_text(MANIFEST, "utf-8")
    (tmp_path / "untested.yaml").write_text(MANIFEST.replace("test:", "other:"), "utf-8")
    (tmp_path / "untrained.yaml").write_text(MANIFEST.replace("train:", "other:"), "utf-8")
    (tmp_path / "blend.yaml").write_text(f"{DESCRIBED}mixture: {{target: 1}}\n", "utf-8")
    return Catalogue([tmp_path])


def _set(path: str, value: object) -> Change:
    def change(config: SweepConfig) -> None:
        *above, last = path.split(".")
        node: object = config
        for part in above:
            node = getattr(node, part)
        setattr(node, last, value)

    return change


def _change_two(word: str, last_layers: int) -> Change:
    def change(config: SweepConfig) -> None:
        config.recipe.parts, config.recipe.language_last_layers = [word], last_layers

    return change


def test_good_config_has_no_problem(catalogue: Catalogue) -> None:
    assert problems(GOOD, catalogue) == []


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("name", _set("name", "../escape")),
        ("name", _set("name", "a/b")),
        ("name", _set("name", "")),
        ("threads", _set("threads", 0)),
        ("resume_minutes", _set("resume_minutes", -1.0)),
        ("resume_minutes", _set("resume_minutes", float("nan"))),
        ("manifests", _set("manifests", ["no_such_folder"])),
        ("data.stages", _set("data.stages", [])),
        ("data.stages.0.set", _set("data.stages", [StageConfig(set="targte")])),
        ("data.stages.0.set", _set("data.stages", [StageConfig(set="untrained")])),
        ("data.stages.1.steps", _set("data.stages", [StageConfig(set="target"), StageConfig(set="target", steps=0)])),
        ("data.stages.0.epochs", _set("data.stages", [StageConfig("target", epochs=0)])),
        ("data.stages.0.epochs", _set("data.stages", [StageConfig("target", steps=5, epochs=1)])),
        (
            "data.stages.0.recipe.learning_rate",
            _set("data.stages", [StageConfig("target", recipe={"learning_rate": 1e-4})]),
        ),
        ("data.stages.0.recipe", _set("data.stages", [StageConfig("target", recipe={"steps": 10})])),
        (
            "data.stages.0.recipe",
            _set("data.stages", [StageConfig("target", recipe={"mix": {"data": ["target:test"]}})]),
        ),
        ("data.stages.0.recipe.lr", _set("data.stages", [StageConfig("target", recipe={"lr": 0})])),
        (
            "data.stages.0.recipe",
            _set("data", DataConfig([StageConfig("target", recipe={"lr": 1e-4})], Training.joint)),
        ),
        ("recipe.parts", _set("recipe.parts", [])),
        ("recipe.parts", _set("recipe.parts", ["languge"])),
        ("recipe.parts", _set("recipe.parts", ["language", "language"])),
        ("recipe.parts", _set("recipe.parts", ["language.atention"])),
        ("recipe.parts", _set("recipe.parts", ["language", "language.mlp"])),
        ("recipe.parts", _set("recipe.parts", ["language.layers_0_to_2", "language.layers_2_to_3.mlp"])),
        ("recipe.language_last_layers", _change_two("language.attention", last_layers=2)),
        ("data.stages.0.recipe.parts", _set("data.stages", [StageConfig("target", recipe={"parts": ["vision.x"]})])),
        ("recipe.language_last_layers", _set("recipe.language_last_layers", 0)),
        ("recipe.lr", _set("recipe.lr", 0)),
        ("recipe.lr", _set("recipe.lr", -1e-5)),
        ("recipe.lr", _set("recipe.lr", "fast")),
        ("recipe.lr", _set("recipe.lr", True)),
        ("recipe.lr", _set("recipe.lr", float("nan"))),
        ("recipe.lr", _set("recipe.lr", {})),
        ("recipe.lr", _set("recipe.lr", {"language": 1e-4, "vision": 1e-4})),
        ("recipe.lr", _set("recipe.lr", {"language": None})),
        ("recipe.mix.ratio", _set("recipe.mix", MixConfig(data=["target"], ratio=1.5))),
        ("recipe.mix.ratio", _set("recipe.mix", MixConfig(data=["target"], ratio=-0.1))),
        ("recipe.mix.data", _set("recipe.mix", MixConfig(ratio=0.5))),
        ("recipe.mix.data", _set("recipe.mix", MixConfig(data=["nothing_like_it"], ratio=0.5))),
        ("recipe.mix.data", _set("recipe.mix", MixConfig(data=["target", "target"], ratio=0.5))),
        ("recipe.steps", _set("recipe.steps", 0)),
        ("recipe.batch_size", _set("recipe.batch_size", 0)),
        ("recipe.gradient_accumulation", _set("recipe.gradient_accumulation", 0)),
        ("recipe.gradient_accumulation", _set("recipe.gradient_accumulation", 3)),
        ("recipe.warmup", _set("recipe.warmup", 1.01)),
        ("recipe.weight_decay", _set("recipe.weight_decay", -0.1)),
        ("recipe.max_grad_norm", _set("recipe.max_grad_norm", 0)),
        ("recipe.checkpoints", _set("recipe.checkpoints", CheckpointConfig(every=10, log_spaced=4))),
        ("recipe.checkpoints.every", _set("recipe.checkpoints", CheckpointConfig(every=0))),
        ("recipe.checkpoints.every", _set("recipe.checkpoints", CheckpointConfig(every=241))),
        ("recipe.checkpoints.steps", _set("recipe.checkpoints", CheckpointConfig(steps=[10, 241]))),
        ("recipe.checkpoints.log_spaced", _set("recipe.checkpoints", CheckpointConfig(log_spaced=0))),
        ("method.parts", _set("method", LoRA(parts=["vision"]))),
        ("method.parts", _set("method", LoRA(parts=["language.attention"]))),
        ("method.parts", _set("method", LoRA(parts=["language.atention"]))),
        ("matrix.datasets", _set("matrix.datasets", ["blend"])),
        ("matrix.datasets", _set("matrix.datasets", ["target:test"])),
        ("data.stages.0.set", _set("data.stages", [StageConfig(set="target:test")])),
        ("recipe.mix.data", _set("recipe.mix", MixConfig(data=["target:test"], ratio=0.5))),
        ("method.rank", _set("method", LoRA(rank=0))),
        ("method.parts", _set("method", LoRA(parts=[]))),
        ("method.targets", _set("method", LoRA(targets={"vision": ["q_proj"]}))),
        ("matrix.datasets", _set("matrix.datasets", [])),
        ("matrix.datasets", _set("matrix.datasets", ["target", "target"])),
        ("matrix.datasets", _set("matrix.datasets", ["untested"])),
        ("matrix.decodings", _set("matrix.decodings", [])),
        ("matrix.limit", _set("matrix.limit", 0)),
        ("matrix.reasoning.marks", _set("matrix.reasoning.marks", [["<think>"]])),
        ("matrix.reasoning.marks", _set("matrix.reasoning.marks", [["|", "|"]])),
        ("matrix.reasoning.max_tokens", _set("matrix.reasoning.max_tokens", 0)),
        ("matrix.max_new_tokens", _set("matrix.max_new_tokens", 0)),
        ("matrix.max_new_tokens", _set("matrix.max_new_tokens", True)),
        ("matrix.max_new_tokens", _set("matrix.max_new_tokens", [64])),
        ("matrix.max_new_tokens", _set("matrix.max_new_tokens", {"target": None})),
        ("matrix.max_new_tokens", _set("matrix.max_new_tokens", {"untested": 64})),
        ("matrix.batch_size", _set("matrix.batch_size", 0)),
        ("matrix.steps", _set("matrix.steps", [-1])),
    ],
)
def test_contradiction_is_named_by_its_key(key: str, change: Change, catalogue: Catalogue) -> None:
    config = copy.deepcopy(GOOD)
    change(config)
    assert key in [problem.key for problem in problems(config, catalogue)]


def test_a_cap_of_a_set_that_is_not_scored_is_refused_by_its_name(catalogue: Catalogue) -> None:
    config = copy.deepcopy(GOOD)
    config.matrix.max_new_tokens = {"target": 64, "targte": 32}
    (problem,) = problems(config, catalogue)
    assert (problem.key, problem.message[:24]) == ("matrix.max_new_tokens", "'targte' is not scored; ")
    config.matrix.max_new_tokens = {"target": 64}
    assert problems(config, catalogue) == []


def test_sets_to_mix_in_need_a_ratio_but_at_a_point_of_a_sweep(catalogue: Catalogue) -> None:
    whole = copy.deepcopy(GOOD)
    whole.recipe.mix = MixConfig(data=["target"])
    assert problems(whole, catalogue) == []
    values = {field.name: getattr(whole, field.name) for field in fields(FinetuneConfig)}
    (problem,) = problems(FinetuneConfig(**values), catalogue)
    assert problem.key == "recipe.mix.ratio"
    assert "nothing of recipe.mix.data (target) is trained on" in problem.message
    values["data"] = DataConfig([StageConfig("target", recipe={"mix": {"ratio": 0.5}})])
    assert problems(FinetuneConfig(**values), catalogue) == []
    mixed = copy.deepcopy(whole)
    mixed.recipe.mix.ratio = 0.5
    assert [problem.key for problem in unused_mix([whole, whole])] == ["recipe.mix.ratio"]
    assert not list(unused_mix([whole, mixed]))


def test_last_layers_need_the_language_part(catalogue: Catalogue) -> None:
    config = copy.deepcopy(GOOD)
    config.recipe.parts = ["projector"]
    config.recipe.language_last_layers = 2
    assert [problem.key for problem in problems(config, catalogue)] == ["recipe.language_last_layers"]


def test_unknown_dataset_names_the_nearest(catalogue: Catalogue) -> None:
    config = copy.deepcopy(GOOD)
    config.matrix.datasets = ["targte"]
    [problem] = problems(config, catalogue)
    assert "target" in problem.message


def test_all_problems_are_listed_at_once(catalogue: Catalogue) -> None:
    config = copy.deepcopy(GOOD)
    config.name, config.threads, config.recipe.warmup = "..", 0, 2.0
    assert [problem.key for problem in problems(config, catalogue)] == ["threads", "name", "recipe.warmup"]


def test_steps_of_stages_count_together(catalogue: Catalogue) -> None:
    config = copy.deepcopy(GOOD)
    config.data.stages = [StageConfig(set="target", steps=100), StageConfig(set="target", steps=50)]
    config.recipe.checkpoints = CheckpointConfig(steps=[150])
    assert problems(config, catalogue) == []
    config.recipe.checkpoints = CheckpointConfig(steps=[151])
    assert [problem.key for problem in problems(config, catalogue)] == ["recipe.checkpoints.steps"]


def test_run_to_score_must_exist(catalogue: Catalogue) -> None:
    config = EvalMatrixConfig(run="no/such/run", model=GOOD.model, data=GOOD.data, matrix=GOOD.matrix)
    assert [problem.key for problem in problems(config, catalogue)] == ["run"]


@pytest.mark.parametrize("run", [None, "."])
def test_an_empty_path_of_the_model_means_where_the_base_of_a_run_was_and_nothing_without_a_run(
    run: str | None, catalogue: Catalogue
) -> None:
    config = EvalMatrixConfig(
        run=run, model=ModelConfig(path=""), data=GOOD.data, matrix=MatrixConfig(datasets=["target"])
    )
    wrong_keys = [problem.key for problem in problems(config, catalogue)]
    assert wrong_keys == ([] if run else ["model.path"])
