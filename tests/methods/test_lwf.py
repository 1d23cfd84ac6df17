"""LwF: the divergence against NumPy, its gradient in closed form, and a teacher that stays the base model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from forgetbench.config import ModelConfig
from forgetbench.methods.base import Batch, Method
from forgetbench.methods.lwf import LwF, distillation
from forgetbench.models.load import load_model
from tests.support.families import llava
from tests.support.runs import ITEMS, all_same_bits, plan, snapshot, trainee_of, trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


def softmax(logits: Any, temperature: float) -> Any:
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def divergence(teacher: Any, student: Any, temperature: float) -> float:
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return float(temperature**2 * (p * np.log(p / q)).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_distillation_and_its_gradient_agree_with_closed_forms(temperature: float) -> None:
    torch.manual_seed(0)
    teacher_NV, student_NV = 3 * torch.randn(7, 11), (3 * torch.randn(7, 11)).requires_grad_()
    loss = distillation(teacher_NV, student_NV, temperature)
    loss.backward()
    student = student_NV.detach()
    assert float(loss.detach()) == pytest.approx(divergence(teacher_NV, student, temperature), rel=1e-5)
    expected = temperature * (softmax(student, temperature) - softmax(teacher_NV, temperature))
    assert np.abs(student_NV.grad.numpy() - expected).max() < 1e-6


def test_a_student_like_its_teacher_has_neither_loss_nor_gradient() -> None:
    logits_NV = (5 * torch.randn(6, 300)).requires_grad_()
    loss = distillation(logits_NV.detach().clone(), logits_NV, 2.0)
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits_NV.grad.abs().max() < 1e-6


class Logits:
    """Passes whose outputs are logits already; the teacher's are zeros."""

    def answer_logits(self, batch: Batch, outputs: Tensor) -> Tensor:
        return outputs

    def reference(self, batch: Batch, weights: Any) -> Tensor:
        return torch.zeros(*batch.labels.shape, 5)


def test_shares_of_micro_batches_sum_to_the_mean_over_answer_tokens() -> None:
    logits_BAV = torch.randn(4, 3, 5)
    labels_BA = torch.tensor([[-100, -100, 1], [2, 4, 0], [-100, 3, 3], [-100, -100, 0]])
    method, context = LwF(strength=0.7, temperature=3.0), trainee_of({"w": torch.ones(1)}, Logits())
    method.begin_stage(context)
    total = 0.0
    for rows in (slice(0, 1), slice(1, 4)):
        batch = Batch({}, labels_BA[rows], (), (), 0.0, 7)
        total += float(method.penalty(context, batch, logits_BAV[rows]))
    answered = logits_BAV[labels_BA >= 0]
    assert total == pytest.approx(0.7 * divergence(torch.zeros_like(answered), answered, 3.0) / 7, rel=1e-5)


def test_the_teacher_is_the_base_model_throughout(folder: Path) -> None:
    """After some steps the penalty is the divergence from a model loaded afresh, read by another route."""
    method = LwF(strength=2.0, temperature=2.0)
    subject = trainer(folder, method, lr=1e-2)
    penalties: list[float] = []
    penalty = method.penalty

    def recorded(context: Any, batch: Batch, outputs: Any) -> Tensor:
        value = penalty(context, batch, outputs)
        penalties.append(float(value.detach()))
        with torch.no_grad():
            inputs = {**batch.inputs, "use_cache": False}
            pairs = [model.eval()(**inputs).logits for model in (base, context.model)]
        context.model.train()
        width = batch.labels.shape[1]
        teacher, student = (logits[:, -width - 1 : -1][batch.labels >= 0] for logits in pairs)
        expected.append(2 * divergence(teacher, student, 2.0) / batch.answers)
        return value

    base, expected = load_model(ModelConfig(path=str(folder))).model, []
    method.penalty = recorded  # type: ignore[method-assign]
    list(subject.run(plan(4)))
    assert penalties[0] == 0
    assert penalties[-1] > 1e-3
    assert penalties == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_distillation_keeps_answers_nearer_and_none_is_plain_training(folder: Path) -> None:
    ends, drift = [], []
    for method in (Method(), LwF(strength=0.0), LwF(strength=5.0)):
        subject = trainer(folder, method, lr=1e-3)
        list(subject.run(plan(6)))
        ends.append(snapshot(subject))
        trained = subject.passes
        base = load_model(ModelConfig(path=str(folder))).model
        batch = trained.batch(ITEMS[:4])
        with torch.no_grad():
            student = trained.answer_logits(batch, trained.forward(batch))[batch.labels >= 0]
            outputs = SimpleNamespace(logits=base(**batch.inputs, use_cache=False).logits)
            teacher = trained.answer_logits(batch, outputs)[batch.labels >= 0]
        drift.append(divergence(teacher, student, 1.0))
    assert all_same_bits(ends[0], ends[1])
    assert drift[2] < 0.7 * drift[1]


def test_settings_without_a_meaning_are_refused() -> None:
    assert set(LwF(strength=-1, temperature=0).problems()) == {"strength", "temperature"}
    assert not LwF().problems()
