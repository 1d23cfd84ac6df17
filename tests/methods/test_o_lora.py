"""O-LoRA: one stage is LoRA, later stages leave earlier adapters alone and are pushed to be orthogonal to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from forgetbench.config import ModelConfig
from forgetbench.methods.base import Batch
from forgetbench.methods.lora import LoRA
from forgetbench.methods.o_lora import OLoRA
from forgetbench.models.load import load_model
from tests.support.families import llava
from tests.support.runs import ITEMS, all_same_bits, plan, same_bits, snapshot, trainee_of, trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


def batch_of(share: float) -> Batch:
    return Batch({}, torch.zeros(1, 1), (), (), share, 1)


def test_a_single_stage_is_lora_to_the_bit(folder: Path) -> None:
    settings: dict[str, Any] = {"rank": 2, "dropout": 0.3}
    ends = []
    for method in (LoRA(**settings), OLoRA(**settings)):
        subject = trainer(folder, method, weight_decay=0.01)
        losses = [report.loss for report in subject.run(plan(3))]
        ends.append((losses, {name.replace("stage1", "default"): value for name, value in snapshot(subject).items()}))
    assert ends[0][0] == ends[1][0]
    assert all_same_bits(ends[0][1], ends[1][1])


def test_penalty_is_the_sum_of_absolute_products_with_every_earlier_stage() -> None:
    torch.manual_seed(0)
    values = {f"{layer}.lora_A.stage{stage}.weight": torch.randn(2, 6) for layer in "xy" for stage in (1, 2, 3, 4)}
    values |= {f"{layer}.lora_B.stage{stage}.weight": torch.randn(5, 2) for layer in "xy" for stage in (1, 2, 3, 4)}
    method, context = OLoRA(strength=0.25), trainee_of(values, stage=3)
    shares = [method.penalty(context, batch_of(share), None) for share in (0.3, 0.7)]
    arrays = {name: value.double().numpy() for name, value in values.items()}
    expected, gradients = 0.0, {}
    for layer in "xy":
        current = arrays[f"{layer}.lora_A.stage3.weight"]
        gradients[layer] = np.zeros((2, 6))
        for stage in (1, 2):
            earlier = arrays[f"{layer}.lora_A.stage{stage}.weight"]
            expected += 0.25 * np.abs(current @ earlier.T).sum()
            gradients[layer] += 0.25 * np.sign(current @ earlier.T) @ earlier
    assert sum(float(share.detach()) for share in shares) == pytest.approx(expected, rel=1e-5)
    sum(shares).backward()
    for name, weight in context.trainable.items():
        if "lora_A.stage3" in name:
            assert np.abs(weight.grad.numpy() - gradients[name[0]]).max() < 1e-5
        else:
            assert weight.grad is None


def test_there_is_no_penalty_in_the_first_stage() -> None:
    values = {f"x.lora_A.stage{stage}.weight": torch.randn(2, 6) for stage in (1, 2)}
    assert OLoRA().penalty(trainee_of(values, stage=1), batch_of(1.0), None) is None


def test_each_stage_moves_its_own_adapters_only(folder: Path) -> None:
    subject = trainer(folder, OLoRA(rank=2), stages=3, weight_decay=0.1)
    start = snapshot(subject)
    assert all(float(value.abs().max()) == 0 for name, value in start.items() if "lora_B" in name)
    before = start
    for step, _ in enumerate(subject.run(plan(2, 2, 2)), start=1):
        if step % 2:
            continue
        now = snapshot(subject)
        for name, value in now.items():
            trains = f".stage{step // 2}." in name or "projector" in name
            assert same_bits(value, before[name]) is not trains, (step, name)
        before = now
    assert subject.delta().keys() == subject.trainable.keys()


def test_the_penalty_makes_later_stages_orthogonal_to_the_first(folder: Path) -> None:
    def overlaps(strength: float) -> float:
        subject = trainer(folder, OLoRA(rank=2, strength=strength), stages=2, gradient_accumulation=2)
        list(subject.run(plan(2, 8)))
        now = snapshot(subject)
        pairs = [(now[name.replace("stage2", "stage1")], now[name]) for name in now if "lora_A.stage2" in name]
        return sum(float((first @ second.T).abs().sum()) for first, second in pairs)

    assert overlaps(0.5) < 0.8 * overlaps(0.0)


@torch.no_grad()
def logits(model: Any, batch: Batch) -> Tensor:
    return model.eval()(**batch.inputs, use_cache=False).logits


def test_adapters_of_all_stages_add_up_and_start_from_the_base_model(folder: Path) -> None:
    subject = trainer(folder, OLoRA(rank=2, alpha=6), stages=2)
    batch = subject.passes.batch(ITEMS[:3])
    base = load_model(ModelConfig(path=str(folder))).model
    assert torch.equal(logits(subject.context.model, batch), logits(base, batch))
    list(subject.run(plan(2, 2)))
    trained = snapshot(subject)
    with torch.no_grad():
        for name, weight in base.named_parameters():
            for stage in ("stage1", "stage2"):
                a, b = (trained.get(f"{name[:-7]}.lora_{side}.{stage}.weight") for side in "AB")
                if a is not None and b is not None:
                    weight.add_(6 / 2 * b @ a)
            if name in trained:
                weight.copy_(trained[name])
    trained_logits = logits(subject.context.model, batch)
    assert (trained_logits - logits(base, batch)).abs().max() < 1e-4
    assert (trained_logits - logits(load_model(ModelConfig(path=str(folder))).model, batch)).abs().max() > 1e-2


def test_settings_without_an_orthogonal_form_are_refused() -> None:
    assert set(OLoRA(strength=-1, weight_decomposed=True, rank=0).problems()) == {
        "strength",
        "weight_decomposed",
        "rank",
    }
    assert not OLoRA(rank_stabilised=True).problems()
