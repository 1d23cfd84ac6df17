"""A sequence of tasks from configuration to tables: trained by stage, scored on all tasks, compared by strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from forgetbench.commands.eval_matrix import eval_matrix
from forgetbench.commands.finetune import finetune
from forgetbench.commands.sweep import summarise_sweep
from forgetbench.config import (
    DataConfig,
    EvalMatrixConfig,
    FinetuneConfig,
    MatrixConfig,
    ModelConfig,
    RecipeConfig,
    ReplayConfig,
    RepresentationConfig,
    StageConfig,
    Training,
)
from forgetbench.core.records import Decoding
from forgetbench.methods.base import Method
from forgetbench.methods.ewc import EWC
from forgetbench.methods.mr_lora import MRLoRA
from forgetbench.models.checkpoint import list_checkpoints
from forgetbench.training import loop
from tests.end_to_end.test_families import write_dataset
from tests.support.families import llava

STAGES = [
    StageConfig("toy_letter", steps=2),
    StageConfig("toy_option", epochs=0.5, recipe={"lr": 5e-3, "batch_size": 2}),
]
STRATEGIES: dict[str, tuple[Callable[[], Method], Training]] = {
    "replay": (Method, Training.sequence),
    "ewc": (lambda: EWC(samples=2, reference=[]), Training.sequence),
    "mr_lora": (lambda: MRLoRA(rank=2, router_samples=4), Training.sequence),
    "joint": (Method, Training.joint),
    "zero_shot": (Method, Training.none),
}


class World:
    """One outputs folder, model and data for all runs."""

    def __init__(self, folder: Path) -> None:
        self.manifests = [str(write_dataset(folder / "data"))]
        self.model = ModelConfig(path=str(llava(folder / "llava")))
        self.outputs = folder / "outputs"

    def train(self, strategy: str, name: str = "", seed: int = 0) -> Path:
        method, training = STRATEGIES[strategy]
        parts = ["language"] if strategy == "mr_lora" else ["projector", "language"]
        replay = ReplayConfig(samples=3 if strategy == "replay" else 0)
        stages = [StageConfig(one.set, steps=2) for one in STAGES] if training is Training.joint else STAGES
        config = FinetuneConfig(
            name=name or strategy,
            seed=seed,
            outputs=str(self.outputs),
            manifests=self.manifests,
            threads=1,
            strategy=strategy,
            model=self.model,
            data=DataConfig(list(stages), training),
            recipe=RecipeConfig(lr=1e-2, parts=parts, batch_size=4, replay=replay),
            method=method(),
        )
        finetune(config, self.outputs / config.name)
        return self.outputs / config.name

    def score(self, **what: Any) -> None:
        """The matrix names one task only; the others are those of the sequence."""
        matrix = MatrixConfig(["toy_letter"], decodings=[Decoding.choice])
        matrix.representation = RepresentationConfig(enabled=False)
        config = EvalMatrixConfig(outputs=str(self.outputs), manifests=self.manifests, threads=1, matrix=matrix, **what)
        eval_matrix(config, self.outputs)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    found = World(tmp_path_factory.mktemp("sequences"))
    for strategy in STRATEGIES:
        found.score(run=str(found.train(strategy)))
    return found


def table(world: World, run: str, name: str = "continual.csv") -> pd.DataFrame:
    return pd.read_csv(world.outputs / run / name)


def test_after_every_stage_every_task_is_scored_and_placed_beside_the_stages_own(world: World) -> None:
    rows = table(world, "replay")
    scores = rows[rows["measure"] == "score"]
    assert len(scores) == 3 * 2
    assert list(zip(scores["stage"], scores["task"], scores["relation"], strict=True)) == [
        (0, "toy_letter", "base"),
        (0, "toy_option", "base"),
        (1, "toy_letter", "current"),
        (1, "toy_option", "future"),
        (2, "toy_letter", "past"),
        (2, "toy_option", "current"),
    ]
    # Half of 12 items by 2 are 3 steps after the first stage's 2.
    assert sorted(set(table(world, "replay", "scores.csv")["step"])) == [0, 2, 5]
    targets = table(world, "replay", "scores.csv").groupby("step")["target"].first()
    assert targets.to_dict() == {0: "toy_letter", 2: "toy_letter", 5: "toy_option"}
    assert set(rows["measure"]) == {"score", "MFT", "MFN", "MAA", "BWT", "FWT", "forgetting"}
    lrs = table(world, "replay", "scores.csv").groupby("step")["lr"].first()
    assert lrs.to_dict() == {0: 1e-2, 2: 1e-2, 5: 5e-3}


def test_bounds_have_what_is_defined_for_them_and_nothing_else(world: World) -> None:
    joint, none = table(world, "joint"), table(world, "zero_shot")
    assert set(joint["measure"]) == set(none["measure"]) == {"score", "MFN"}
    assert set(joint.loc[joint["stage"] == 1, "trained"]) == {"toy_letter+toy_option"}
    assert [one.step for one in list_checkpoints(world.outputs / "joint")] == [0, 4]
    assert [one.step for one in list_checkpoints(world.outputs / "zero_shot")] == [0]
    base = table(world, "replay").query("stage == 0").set_index("task")["value"]
    assert none.set_index("task").loc[list(base.index), "value"].to_dict() == base.to_dict()


@pytest.mark.parametrize("strategy", ["ewc", "mr_lora"])
def test_a_run_that_is_killed_in_its_second_stage_ends_with_the_same_bytes(
    world: World, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = loop.Trainer.run

    def cut(self: loop.Trainer, *of: Any) -> Iterator[loop.StepReport]:
        for report in whole(self, *of):
            if report.step == 4:
                raise KeyboardInterrupt
            yield report

    with monkeypatch.context() as patched:
        patched.setattr(loop.Trainer, "run", cut)
        with pytest.raises(KeyboardInterrupt):
            world.train(strategy, f"{strategy}_again")
    again = world.train(strategy, f"{strategy}_again")
    first, second = ([one.digest for one in list_checkpoints(folder)] for folder in (world.outputs / strategy, again))
    assert first == second
    assert len(first) == 3


def test_strategies_are_compared_and_reported(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    for strategy in STRATEGIES:
        (folder / strategy).symlink_to(world.outputs / strategy)
    (tmp_path / ".cells").symlink_to(world.outputs / ".cells")
    summarise_sweep(folder, [folder / strategy for strategy in STRATEGIES])
    strategies = pd.read_csv(folder / "strategies.csv")
    assert set(strategies["strategy"]) == set(STRATEGIES)
    final = strategies[strategies["measure"] == "MFN"].set_index("strategy")
    assert set(final["reference"].dropna()) == {"replay"}
    for strategy in STRATEGIES:
        own = table(world, strategy).query("measure == 'MFN'")["value"].iloc[0]
        assert final.loc[strategy, "value"] == pytest.approx(own)
        if strategy != "replay":  # which the others are compared with
            assert final.loc[strategy, "diff"] == pytest.approx(own - final.loc["replay", "value"])


def test_the_base_alone_is_scored_on_a_sequence(world: World) -> None:
    world.score(model=world.model, data=DataConfig(STAGES))
    (base,) = world.outputs.glob("base-llava-*-toy_letter")
    rows = table(world, base.name)
    assert set(rows["measure"]) == {"score", "MFN"}
    assert set(rows["strategy"]) == {"zero_shot"}
