"""A stage is a training of its own, on the weights that the one before left."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from forgetbench.config import ModelConfig, RecipeConfig, StageConfig, stage_recipe
from forgetbench.data.collate import Encoder
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.methods.base import Method, TrainingContext
from forgetbench.methods.lora import LoRA
from forgetbench.models.checkpoint import load_resume, save_checkpoint, save_resume
from forgetbench.models.load import load_model
from forgetbench.models.parts import part_of
from forgetbench.training.loop import Resume, Trainer
from forgetbench.training.plan import Stage
from forgetbench.training.prepare import prepare
from tests.support.families import llava
from tests.support.runs import ITEMS, all_same_bits, plan, trainer

RECIPE = RecipeConfig(lr=1e-2, parts=["projector", "language"], batch_size=4, weight_decay=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


def two_tasks(*recipes: RecipeConfig) -> list[Stage]:
    """Three and four steps, on items of their own."""
    streams = [MixedStream([WeightedSet("toy", items, 1.0)], [], 0.0, seed=7) for items in (ITEMS[:5], ITEMS[5:])]
    return [
        Stage(f"task{k}", stream, 3 + k, "digest", recipe)
        for k, (stream, recipe) in enumerate(zip(streams, recipes, strict=True))
    ]


def changing(folder: Path, *recipes: RecipeConfig) -> Trainer:
    torch.set_num_threads(1)
    loaded = load_model(ModelConfig(path=str(folder)))
    prepared = prepare(loaded.model, recipes, Method(), 0)
    return Trainer(
        loaded, Encoder(loaded.processor), Method(), recipes[0], 0, trainable_by_stage=prepared.trainable_by_stage
    )


@pytest.mark.parametrize("method", [Method, lambda: LoRA(rank=2)], ids=["plain", "seq_lora"])
def test_two_stages_are_two_trainings_chained_through_a_checkpoint_to_the_bit(
    folder: Path, tmp_path: Path, method: type[Method]
) -> None:
    later = replace(RECIPE, lr=3e-3, batch_size=2, warmup=0.5)
    stages = two_tasks(RECIPE, later)
    whole = trainer(folder, method(), weight_decay=0.1)
    losses = [report.loss for report in whole.run(stages)]

    first = trainer(folder, method(), weight_decay=0.1)
    chained = [report.loss for report in first.run(stages[:1])]
    saved = save_checkpoint(tmp_path, 3, first.delta(), {"method": {}}).delta()
    second = trainer(folder, method(), weight_decay=0.1)
    with torch.no_grad():
        for name, value in saved.items():
            second.trainable[name].copy_(value)
    chained += [report.loss for report in second.run(stages[1:])]

    assert chained == losses
    assert all_same_bits(dict(whole.trainable), dict(second.trainable))


def test_the_optimiser_is_fresh_in_each_stage_unless_it_is_carried(folder: Path) -> None:
    def losses(carry: bool) -> list[float]:
        loaded = load_model(ModelConfig(path=str(folder)))
        prepare(loaded.model, [RECIPE] * 2, Method(), 0)
        subject = Trainer(loaded, Encoder(loaded.processor), Method(), RECIPE, 0, carry_optimiser=carry)
        step_losses = [report.loss for report in subject.run(plan(2, 3))]
        state = next(iter(subject.optimiser.state.values()))
        assert int(state["step"]) == (5 if carry else 3)
        return step_losses

    fresh, carried = losses(False), losses(True)
    assert fresh[:3] == carried[:3]
    assert fresh[3:] != carried[3:]


@pytest.mark.parametrize("carry", [False, True])
def test_the_moments_of_one_stage_alone_are_held(folder: Path, carry: bool) -> None:
    @dataclass
    class MomentCounter(Method):
        """Counts what is held when a stage looks at the weights that it starts from."""

        held: list[int] = field(default_factory=list)

        def begin_stage(self, context: TrainingContext) -> None:
            self.held.append(len(alive()))

    seen: dict[int, weakref.ref[Tensor]] = {}

    def alive() -> list[Tensor]:
        gc.collect()
        return [tensor for reference in seen.values() if (tensor := reference()) is not None]

    loaded, method = load_model(ModelConfig(path=str(folder))), MomentCounter()
    prepare(loaded.model, [RECIPE] * 3, method, 0)
    subject = Trainer(loaded, Encoder(loaded.processor), method, RECIPE, 0, carry_optimiser=carry)
    one_set = 3 * len(subject.trainable)  # AdamW's step count and two moments
    for _ in subject.run(plan(2, 1, 2)):
        seen |= {
            id(tensor): weakref.ref(tensor) for state in subject.optimiser.state.values() for tensor in state.values()
        }
        assert len(alive()) == one_set
    assert method.held == ([0, one_set, one_set] if carry else [0, 0, 0])


def test_each_stage_trains_the_parts_at_the_rate_that_its_recipe_names(folder: Path) -> None:
    projector, language = replace(RECIPE, parts=["projector"]), replace(RECIPE, parts=["language"], lr=1e-3)
    subject = changing(folder, projector, language)
    base = {name: parameter.detach().clone() for name, parameter in subject.trainable.items()}
    moved: list[set[str]] = []
    for report in subject.run(two_tasks(projector, language)):
        moved.append(
            {part_of(name) for name, parameter in subject.trainable.items() if not torch.equal(parameter, base[name])}
        )
        assert set(report.lr) == {"projector" if report.stage == 1 else "language"}
        assert max(report.lr.values()) <= (1e-2 if report.stage == 1 else 1e-3)
        base = {name: parameter.detach().clone() for name, parameter in subject.trainable.items()}
    assert moved == [{"projector"}] * 3 + [{"language"}] * 4
    assert {part_of(name) for name in subject.delta()} == {"projector", "language"}


def test_a_run_whose_parts_change_is_resumed_in_the_second_stage(folder: Path, tmp_path: Path) -> None:
    recipes = replace(RECIPE, parts=["projector"]), replace(RECIPE, parts=["language"], lr=1e-3)
    straight = changing(folder, *recipes)
    list(straight.run(two_tasks(*recipes)))
    first = changing(folder, *recipes)
    for report in islice(first.run(two_tasks(*recipes)), 5):
        if report.step == 3:
            before = save_checkpoint(tmp_path, report.step, first.delta(), {"method": {}}).delta()
    save_resume(tmp_path, first.resume_point(5))
    point = load_resume(tmp_path)
    assert point is not None
    second = changing(folder, *recipes)
    list(second.run(two_tasks(*recipes), Resume(point, before)))
    assert all_same_bits(dict(second.delta()), dict(straight.delta()))


def test_a_stage_of_other_words_brings_its_own_rates_and_leaves_out_the_others() -> None:
    run = replace(RECIPE, parts=["projector", "language.mlp"], lr={"projector": 1e-3, "language.mlp": 1e-4})
    words = ["projector", "vision.attention"]
    stage = stage_recipe(run, StageConfig("toy", recipe={"parts": words, "lr": {"vision.attention": 1e-5}}))
    assert stage.lr == {"projector": 1e-3, "vision.attention": 1e-5}
    unnamed = stage_recipe(run, StageConfig("toy", recipe={"lr": {"vision": 1e-5}}))
    assert unnamed.lr == {"projector": 1e-3, "language.mlp": 1e-4, "vision": 1e-5}  # refused where it is checked
