"""IncLoRA: what a stage has learnt goes into the weights, and the function stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from forgetbench.config import ModelConfig
from forgetbench.data.batching import batch_prompts
from forgetbench.data.collate import Encoder
from forgetbench.methods.base import TrainingContext
from forgetbench.methods.inc_lora import IncLoRA
from forgetbench.models.load import load_model
from tests.support.families import llava
from tests.support.runs import ITEMS, all_same_bits, plan, trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


@torch.no_grad()
def logits(model: torch.nn.Module, folder: Path) -> Tensor:
    encoder = Encoder(load_model(ModelConfig(path=str(folder))).processor)
    inputs = batch_prompts([encoder.prompt(sample) for sample in ITEMS[:2]], encoder.pad_id)
    model.eval()
    values: Tensor = model(**inputs).logits
    model.train()
    return values


@pytest.mark.parametrize("stabilised", [False, True], ids=["LoRA", "rsLoRA"])
def test_a_merged_adapter_answers_as_the_unmerged_one(folder: Path, stabilised: bool) -> None:
    method = IncLoRA(rank=2, rank_stabilised=stabilised)
    subject = trainer(folder, method, stages=2)
    model = subject.context.model
    answers: dict[int, Tensor] = {0: logits(model, folder)}
    begin_stage = method.begin_stage

    def watched(context: TrainingContext) -> None:
        answers[1] = logits(model, folder)
        begin_stage(context)
        answers[2] = logits(model, folder)

    steps = subject.run(plan(4, 1))
    for _ in range(4):
        next(steps)
    method.begin_stage = watched  # type: ignore[method-assign]
    next(steps)
    assert (answers[1] - answers[0]).abs().max() > 1e-2  # it has learnt something
    assert (answers[2] - answers[1]).abs().max() < 1e-5


def test_the_adapter_starts_anew_on_weights_that_hold_the_stage_before(folder: Path) -> None:
    subject = trainer(folder, IncLoRA(rank=2), stages=2)
    steps = subject.run(plan(3, 2))
    for _ in range(3):
        next(steps)
    live = dict(subject.context.model.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in live.items()}
    assert not any(name.endswith("base_layer.weight") for name in subject.delta())
    list(steps)
    weights = [name for name in subject.delta() if name.endswith("base_layer.weight")]
    assert weights
    name = weights[0]
    layer = name.removesuffix("base_layer.weight")
    a_RD, b_OR = (before[f"{layer}lora_{factor}.default.weight"] for factor in "AB")
    # alpha / rank = 16 / 2
    assert torch.allclose(live[name], before[name] + 8 * b_OR @ a_RD, atol=1e-6)
    assert not torch.equal(live[f"{layer}lora_A.default.weight"], a_RD)


def test_one_stage_is_lora(folder: Path) -> None:
    from forgetbench.methods.lora import LoRA

    deltas = []
    for method in (IncLoRA(rank=2), LoRA(rank=2)):
        subject = trainer(folder, method)
        list(subject.run(plan(3)))
        deltas.append(subject.delta())
    assert all_same_bits(*deltas)


def test_a_length_of_rows_cannot_be_merged() -> None:
    assert set(IncLoRA(weight_decomposed=True).problems()) == {"weight_decomposed"}
