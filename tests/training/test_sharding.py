"""What `sharding=fsdp2` is refused for, and what the helpers do where nothing is sliced."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import torch

from forgetbench.compose.checks.processes import process_problems
from forgetbench.config import (
    DataConfig,
    FinetuneConfig,
    ModelConfig,
    RecipeConfig,
    Sharding,
    StageConfig,
    SweepConfig,
    Training,
)
from forgetbench.core.errors import UserError
from forgetbench.core.processes import processes_started, start_processes
from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA
from forgetbench.methods.operation import Operation
from forgetbench.methods.registry import SCHEMAS
from forgetbench.models.tensors import local_slice, placed_like, put, total, whole
from tests.support.families import llava
from tests.support.together import Case, trainer

CAN = {"plain", "lora", "rslora", "spider", "magnitude_mask", "gmt", "l2sp", "hft"}
DURING = {
    key.partition("/")[2]: cls
    for key, cls in SCHEMAS.items()
    if key.startswith("method/") and issubclass(cls, Method) and not issubclass(cls, Operation)
}
TORCHRUN = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture
def two_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)


FSDP2 = FinetuneConfig(
    name="run",
    sharding=Sharding.fsdp2,
    model=ModelConfig(path="embedded:tiny"),
    data=DataConfig(stages=[StageConfig("target")]),
    recipe=RecipeConfig(lr=1e-4, parts=["projector", "language"]),
    method=Method(),
)


def messages(config: FinetuneConfig) -> dict[str, str]:
    return {problem.key: problem.message for problem in process_problems(config)}


@pytest.mark.usefixtures("two_started")
@pytest.mark.parametrize("name", [*DURING, "rslora", "dora"])
def test_a_method_works_on_slices_or_is_refused_by_name(name: str) -> None:
    variants = {"rslora": LoRA(rank_stabilised=True), "dora": LoRA(weight_decomposed=True)}
    method = variants.get(name) or DURING[name]()
    message = messages(replace(FSDP2, method=method)).get("sharding", "")
    assert (message == "") is (name in CAN)
    assert name in CAN or (f"method={method.name}: " in message and "sharding=none" in message)
    assert not list(process_problems(replace(FSDP2, method=method, sharding=Sharding.none)))


@pytest.mark.usefixtures("two_started")
def test_a_method_that_says_nothing_of_slices_is_refused() -> None:
    @dataclass
    class Own(Method):
        name: str = "own"

    assert "has not been written for slices" in messages(replace(FSDP2, method=Own()))["sharding"]


@pytest.mark.usefixtures("two_started")
def test_stages_that_train_other_parts_are_refused() -> None:
    def stages(**recipe: object) -> dict[str, str]:
        return messages(
            replace(FSDP2, data=DataConfig(stages=[StageConfig("a"), StageConfig("b", recipe=dict(recipe))]))
        )

    assert list(stages(parts=["language"])) == ["data.stages.1.recipe.parts"]
    assert list(stages(language_last_layers=1)) == ["data.stages.1.recipe.language_last_layers"]
    assert stages(lr=1e-5, parts=["language", "projector"]) == {}


def shared_by_two(*stages: dict[str, object], training: Training = Training.sequence, **recipe: int) -> dict[str, str]:
    """What is said of a run without slices whose stages change this of the recipe."""
    chosen = RecipeConfig(lr=1e-4, parts=["language"], **recipe)  # type: ignore[arg-type]
    data = DataConfig([StageConfig("target", recipe=stage) for stage in stages], training)
    return messages(replace(FSDP2, sharding=Sharding.none, recipe=chosen, data=data))


@pytest.mark.usefixtures("two_started")
def test_a_micro_batch_that_some_process_gets_nothing_of_is_refused_by_its_stage() -> None:
    problems = shared_by_two({}, {"batch_size": 1}, {"gradient_accumulation": 32})
    assert list(problems) == ["data.stages.1.recipe.batch_size", "data.stages.2.recipe.gradient_accumulation"]
    for message in problems.values():
        assert message == (
            "batch_size / gradient_accumulation = 1 cannot be shared by 2 processes; make it a multiple of 2."
        )
    assert list(shared_by_two({}, {"lr": 1e-5}, batch_size=3)) == ["recipe.batch_size"]


@pytest.mark.usefixtures("two_started")
def test_a_batch_that_no_stage_trains_with_is_not_held_against_a_run() -> None:
    assert shared_by_two({"batch_size": 4}, batch_size=1) == {}
    assert shared_by_two({}, batch_size=1, training=Training.none) == {}


def test_one_process_takes_any_micro_batch() -> None:
    assert shared_by_two({}, {"batch_size": 1}, batch_size=3) == {}


def test_one_process_cannot_slice(tmp_path: Path) -> None:
    assert "torchrun" in messages(FSDP2)["sharding"]
    assert messages(replace(FSDP2, sharding=Sharding.none)) == {}
    with pytest.raises(UserError, match="needs several processes"):
        trainer(llava(tmp_path / "llava"), Case(), Sharding.fsdp2)


@pytest.mark.usefixtures("two_started")
def test_a_sweep_and_an_operation_after_training_work_in_one_process() -> None:
    values = {field.name: getattr(FSDP2, field.name) for field in fields(FinetuneConfig)}
    assert "sweep" in messages(SweepConfig(**values))["sharding"]
    after = SCHEMAS["method/wise_ft"]()
    assert "one process" in messages(replace(FSDP2, method=after, run="outputs/run"))["sharding"]


def test_processes_that_cannot_find_each_other_are_told_how_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not: start several"):
        processes_started()
    assert "RANK" in messages(FSDP2)["sharding"]
    monkeypatch.delenv("WORLD_SIZE")
    assert processes_started() == 1
    # What `accelerate launch --cpu --num_processes 2` sets in the one process that it starts.
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert processes_started() == 1
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(UserError, match=r"started one process of several: .*--multi_gpu"):
        processes_started()


@pytest.mark.parametrize("flag", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_accelerates_own_sharding_is_refused(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    monkeypatch.setenv(flag, "true")
    with pytest.raises(UserError, match=f"{flag}: leave out .*sharding=fsdp2"):
        start_processes()


def test_what_is_not_sliced_is_its_own_slice_and_its_own_whole() -> None:
    tensor, value = torch.zeros(3), torch.arange(3.0)
    assert whole(tensor) is tensor
    assert local_slice(tensor) is tensor
    assert placed_like(value, tensor) is value
    assert total(value, tensor) is value
    put(tensor, value)
    assert torch.equal(tensor, value)
