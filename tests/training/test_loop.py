"""The training loop on a tiny LLaVA: what trains, by how much, and that a killed run ends the same."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forgetbench.config import ModelConfig, RecipeConfig, Schedule
from forgetbench.core.records import Precision, Sample
from forgetbench.data.collate import Encoder
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.data.pictures import decode_image
from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA
from forgetbench.models.load import LoadedModel, load_model
from forgetbench.models.parts import part_of, word_of
from forgetbench.training.loop import Resume, StepReport, Trainer
from forgetbench.training.plan import Stage
from forgetbench.training.prepare import prepare
from forgetbench.training.run import TrainLog, train
from tests.support.families import llava
from tests.support.runs import ITEMS

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


def stages(*steps: int) -> list[Stage]:
    stream = MixedStream([WeightedSet("toy", ITEMS, 1.0)], [], 0.0, seed=3)
    return [Stage("toy", stream, n, "digest") for n in steps]


def recipe(**changes: Any) -> RecipeConfig:
    values: dict[str, Any] = {
        "lr": 1e-3,
        "parts": ["projector", "language"],
        "batch_size": 4,
        "schedule": Schedule.linear,
        "precision": Precision.fp32,
    }
    return RecipeConfig(**(values | changes))


def trainer(folder: Path, seed: int = 0, method: Method | None = None, **changes: Any) -> Trainer:
    loaded = load_model(ModelConfig(path=str(folder)))
    return trainer_of(loaded, recipe(**changes), method or Method(), seed)


def trainer_of(loaded: LoadedModel, chosen: RecipeConfig, method: Method, seed: int = 0) -> Trainer:
    prepare(loaded.model, [chosen], method, seed)
    return Trainer(loaded, Encoder(loaded.processor), method, chosen, seed)


def weights(model: torch.nn.Module) -> Weights:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(first: Weights, second: Weights) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "parts",
    [
        ["vision"],
        ["projector"],
        ["language"],
        ["vision", "projector"],
        ["projector", "language"],
        ["language.attention"],
        ["language.embeddings", "vision.layers_0_to_0.mlp"],
        ["language.layers_1_to_1.mlp_gate_up", "language.norms"],
    ],
    ids="+".join,
)
def test_frozen_parts_are_bitwise_unchanged_after_ten_steps(folder: Path, parts: list[str]) -> None:
    loaded = load_model(ModelConfig(path=str(folder)))
    before = weights(loaded.model)
    subject = trainer_of(loaded, recipe(parts=parts), Method())
    list(subject.run(stages(10)))
    changed = {name for name, value in weights(loaded.model).items() if not torch.equal(value, before[name])}
    assert {word_of(name, parts) for name in changed} == set(parts)
    assert set(subject.delta()) == changed
    assert subject.trained_parts(stages(10)) == sorted(parts)


def test_a_tensor_that_gets_no_gradient_is_not_in_the_delta(folder: Path) -> None:
    subject = trainer(folder, parts=["vision"])
    list(subject.run(stages(2)))
    # LLaVA reads the tower before its final norm.
    unused = subject.trainable.keys() - subject.delta().keys()
    assert unused == {f"model.vision_tower.post_layernorm.{name}" for name in ("weight", "bias")}


def test_a_micro_batch_of_text_alone_leaves_a_vision_only_run_where_it_was(folder: Path) -> None:
    subject = trainer(folder, parts=["vision"], batch_size=1)
    stream = MixedStream([WeightedSet("text", [ITEMS[4]], 1.0)], [], 0.0, seed=3)
    (report,) = subject.run([Stage("text", stream, 1, "digest")])
    assert report.loss > 0
    assert report.grad_norm == 0
    assert subject.delta() == {}


@torch.no_grad()
def independent_loss(folder: Path, samples: list[Sample]) -> float:
    """Whole conversations, HF's own labels and loss, averaged over the answer tokens."""
    loaded = load_model(ModelConfig(path=str(folder)))
    total, count = 0.0, 0
    for sample in samples:
        content = [{"type": "image"}] * len(sample.images) + [{"type": "text", "text": sample.prompt}]
        turns = [{"role": "user", "content": content}]
        head = loaded.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        turns.append({"role": "assistant", "content": [{"type": "text", "text": sample.answer}]})
        whole = loaded.processor.apply_chat_template(turns, tokenize=False)
        images = [decode_image(image) for image in sample.images] or None
        inputs = loaded.processor(text=[whole], images=images, return_tensors="pt")
        prompt_length = loaded.processor(text=[head], images=images, return_tensors="pt")["input_ids"].shape[1]
        labels = inputs["input_ids"].clone()
        labels[:, :prompt_length] = -100
        n = int((labels != -100).sum())
        total += float(loaded.model(**inputs, labels=labels).loss) * n
        count += n
    return total / count


def test_the_loss_is_the_mean_over_the_answer_tokens_of_the_batch(folder: Path) -> None:
    for accumulation in (1, 2):
        report = next(trainer(folder, gradient_accumulation=accumulation).run(stages(3)))
        expected = independent_loss(folder, stages(3)[0].stream.batch(1, 4))
        assert report.loss == pytest.approx(expected, abs=1e-5)


def test_gradient_accumulation_gives_the_same_update(folder: Path) -> None:
    updates = []
    for accumulation in (1, 2, 4):
        subject = trainer(folder, gradient_accumulation=accumulation, lr=1e-4)
        list(subject.run(stages(2)))
        updates.append({name: value.detach().clone() for name, value in subject.trainable.items()})
    for other in updates[1:]:
        assert max(float((updates[0][name] - other[name]).abs().max()) for name in other) < 1e-6


def test_each_part_moves_at_its_own_learning_rate(folder: Path) -> None:
    loaded = load_model(ModelConfig(path=str(folder)))
    before = weights(loaded.model)
    chosen = recipe(lr={"projector": 1e-3, "language": 1e-5}, schedule=Schedule.constant, warmup=0.0)
    report = next(trainer_of(loaded, chosen, Method()).run(stages(1)))
    assert report.lr == {"projector": 1e-3, "language": 1e-5}
    moved = {"projector": 0.0, "language": 0.0}
    for name, value in weights(loaded.model).items():
        part = part_of(name)
        if part in moved:
            moved[part] = max(moved[part], float((value - before[name]).abs().max()))
    # Adam's first step is the learning rate itself.
    assert moved["projector"] == pytest.approx(1e-3, rel=0.02)
    assert moved["language"] == pytest.approx(1e-5, rel=0.05)


def test_the_optimiser_decays_matrices_and_leaves_norms_and_biases(folder: Path) -> None:
    subject = trainer(folder, weight_decay=0.1)
    list(subject.run(stages(1)))
    assert {group["weight_decay"] for group in subject.optimiser.param_groups} == {0.0, 0.1}
    for group in subject.optimiser.param_groups:
        assert all((parameter.ndim > 1) == (group["weight_decay"] > 0) for parameter in group["params"])


def test_bf16_arithmetic_keeps_fp32_weights_and_optimiser_state(folder: Path) -> None:
    subject = trainer(folder, precision=Precision.bf16)
    (report,) = subject.run(stages(1))
    tensors = [*subject.trainable.values(), *subject.resume_point(1).tensors.values()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    (exact,) = trainer(folder, precision=Precision.fp32).run(stages(1))
    assert report.loss != exact.loss
    assert report.loss == pytest.approx(exact.loss, rel=0.02)


def rows(folder: Path) -> list[list[str]]:
    """train.csv without what was measured."""
    with (folder / "train.csv").open() as file:
        return [row[: -len(TrainLog.MEASURED)] for row in csv.reader(file)]


def checkpoints(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("checkpoints/*/*"))}


METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lora": {"method": LoRA(rank=2, dropout=0.3), "weight_decay": 0.01},
    "bf16": {"precision": Precision.bf16, "gradient_accumulation": 2},
}
KEEP = [2, 3, 5]
STEPS = (3, 2)


class KilledError(Exception):
    """Stands for a signal."""


def run(folder: Path, target: Path, method: str, kill_at: int | None = None) -> Trainer:
    subject = trainer(folder, seed=1, **METHODS[method])
    if kill_at is not None:
        whole = subject.run

        def cut(given: Sequence[Stage], resume: Resume | None = None) -> Iterator[StepReport]:
            """Ends before the step is written down."""
            for report in whole(given, resume):
                if report.step == kill_at:
                    raise KilledError
                yield report

        subject.run = cut  # type: ignore[method-assign]
    target.mkdir(exist_ok=True)
    try:
        train(target, subject, stages(*STEPS), KEEP, {"method": {"name": method}})
    except KilledError:
        assert kill_at is not None
    return subject


@pytest.fixture(scope="module", params=list(METHODS))
def uninterrupted(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.set_num_threads(1)
    target = tmp_path_factory.mktemp("run")
    subject = run(folder, target, request.param)
    return request.param, target, subject.resume_point(5).tensors


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path, uninterrupted: Any) -> None:
    method, target, state = uninterrupted
    again = run(folder, tmp_path, method)
    assert checkpoints(tmp_path) == checkpoints(target)
    assert rows(tmp_path) == rows(target)
    assert same(again.resume_point(5).tensors, state)
    assert not (tmp_path / "resume").exists()


@pytest.mark.parametrize("kill_at", [1, 3, 4, 5])
def test_a_killed_run_ends_with_the_same_bytes(folder: Path, tmp_path: Path, uninterrupted: Any, kill_at: int) -> None:
    method, target, state = uninterrupted
    run(folder, tmp_path, method, kill_at)
    assert len(rows(tmp_path)) == kill_at
    resumed = run(folder, tmp_path, method)
    assert checkpoints(tmp_path) == checkpoints(target)
    assert rows(tmp_path) == rows(target)
    assert same(resumed.resume_point(5).tensors, state)


def test_a_checkpoint_without_its_resume_point_is_made_again(folder: Path, tmp_path: Path, uninterrupted: Any) -> None:
    method, target, state = uninterrupted
    run(folder, tmp_path, method, kill_at=3)
    at_two = tmp_path.with_name(tmp_path.name + "-resume")
    shutil.copytree(tmp_path / "resume", at_two)
    run(folder, tmp_path, method, kill_at=4)
    # Killed between writing checkpoint 3 and its resume point: what resumes is step 2.
    shutil.rmtree(tmp_path / "resume")
    at_two.rename(tmp_path / "resume")
    resumed = run(folder, tmp_path, method)
    assert checkpoints(tmp_path) == checkpoints(target)
    assert rows(tmp_path) == rows(target)
    assert same(resumed.resume_point(5).tensors, state)


def test_another_seed_gives_other_dropout(folder: Path) -> None:
    losses = []
    for seed in (0, 1):
        subject = trainer(folder, seed=seed, method=LoRA(rank=2, dropout=0.5))
        losses.append([report.loss for report in subject.run(stages(3))])
    assert losses[0] != losses[1]


def test_a_delta_on_disk_holds_the_changed_tensors_in_full(folder: Path, tmp_path: Path) -> None:
    subject = run(folder, tmp_path, "plain")
    stored = load_file(tmp_path / "checkpoints" / "step_000005" / "delta.safetensors")
    assert same(stored, subject.delta())
    assert {part_of(name) for name in stored} == {"projector", "language"}
