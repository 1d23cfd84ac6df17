"""EWC: Fisher information against logistic regression by hand, and what it holds in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgetbench.core.errors import UserError
from forgetbench.core.records import AnswerKind, Sample
from forgetbench.methods.base import Batch, Method, TrainingContext
from forgetbench.methods.ewc import EWC, fisher
from tests.support.families import llava
from tests.support.runs import ITEMS, all_same_bits, plan, same_bits, snapshot, trainee_of, trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


INPUTS = np.random.default_rng(0).normal(size=(6, 4))
LABELS = [0, 2, 1, 1, 0, 2]


class Regression:
    """Softmax regression whose items are rows of INPUTS; an item's prompt is its number."""

    seed = 0

    def __init__(self, weight: Tensor) -> None:
        self.model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3, bias=False))
        self.model[1].weight.data.copy_(weight)
        self.unused = nn.Parameter(torch.ones(2))

    @property
    def context(self) -> TrainingContext:
        trainable = {"weight": self.model[1].weight, "unused": self.unused}
        samples = [Sample.question(str(i), str(i), "", AnswerKind.text) for i in range(len(LABELS))]
        return TrainingContext(self.model, trainable, self, {"general": samples})  # type: ignore[arg-type]

    def batch(self, samples: Sequence[Sample]) -> Batch:
        rows = [int(sample.prompt) for sample in samples]
        inputs = {"x": torch.tensor(INPUTS[rows], dtype=torch.float32)}
        return Batch(inputs, torch.tensor([LABELS[row] for row in rows]), samples, (), 1.0, len(rows))

    def forward(self, batch: Batch) -> Tensor:
        return self.model(batch.inputs["x"])

    def loss(self, batch: Batch, outputs: Tensor) -> Tensor:
        return F.cross_entropy(outputs, batch.labels, reduction="sum")

    rank, world = 0, 1

    def local_share(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        return samples[self.rank :: self.world]

    def total(self, tensor: Tensor) -> Tensor:
        return tensor


def fisher_by_hand(weight: Tensor) -> np.ndarray:
    """Mean over items of ((p - y) x)^2."""
    logits = INPUTS @ weight.double().numpy().T
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gradients = (p - np.eye(3)[LABELS])[:, :, None] * INPUTS[:, None, :]
    return (gradients**2).mean(axis=0)


def test_fisher_is_the_mean_of_squared_gradients_of_single_items_without_dropout() -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    context = Regression(weight).context
    context.model.train()
    information = fisher(context, context.read["general"])
    assert np.abs(information["weight"].numpy() - fisher_by_hand(weight)).max() < 1e-6
    assert information["unused"].tolist() == [0, 0]
    assert context.model.training
    assert all(weight.grad is None for weight in context.trainable.values())


def test_processes_share_the_items_and_sum_to_the_whole() -> None:
    passes = Regression(torch.randn(3, 4, generator=torch.Generator().manual_seed(1)))
    context = passes.context
    whole = fisher(context, context.read["general"])["weight"]
    shares = []
    passes.world = 4
    for passes.rank in range(4):
        shares.append(fisher(context, context.read["general"])["weight"])
    assert all((share < whole).any() for share in shares)
    assert (sum(shares) - whole).abs().max() < 1e-6


def test_gradient_is_that_of_the_weighted_quadratic() -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    context = Regression(weight).context
    method = EWC(strength=5.0, samples=1000)
    method.begin(context)
    task, step = torch.randn(3, 4), torch.randn(3, 4)
    parameter = context.trainable["weight"]
    parameter.grad = task.clone()
    method.edit_gradients(context)
    assert same_bits(parameter.grad, task)  # at w0
    parameter.data.add_(step)
    method.edit_gradients(context)
    assert np.abs((parameter.grad - task).numpy() - 5 * fisher_by_hand(weight) * step.numpy()).max() < 1e-5


def information_of(method: EWC) -> dict[str, Tensor]:
    """The Fisher information by weight, as a resumed run gets it."""
    kind = "fisher/"
    return {key.removeprefix(kind): tensor for key, tensor in method.state().items() if key.startswith(kind)}


def test_a_stronger_hold_moves_less_what_the_reference_needs_and_none_is_plain_training(folder: Path) -> None:
    information: dict[str, Tensor] = {}

    def trained(method: Method) -> tuple[dict[str, Tensor], float]:
        subject = trainer(folder, method, read={"general": ITEMS[:4]}, lr=3e-3)
        start = snapshot(subject)
        list(subject.run(plan(8)))
        if isinstance(method, EWC):
            information.update(information_of(method))
        end = snapshot(subject)
        return end, sum(float((information[name] * (end[name] - start[name]).square()).sum()) for name in information)

    none, free = trained(EWC(strength=0.0, samples=4))
    assert all_same_bits(none, trained(Method())[0])
    held = [trained(EWC(strength=strength, samples=4))[1] for strength in (10.0, 1000.0)]
    assert free > 1.5 * held[0] > 1.5 * held[1] > 0


def test_the_items_are_drawn_from_all_reference_sets_and_again_the_same(folder: Path) -> None:
    read: Mapping[str, Any] = {"one": ITEMS[:5], "two": ITEMS[5:]}
    information = []
    for seed in (0, 0, 1):
        method = EWC(samples=3, reference=["one", "two"])
        assert method.reads() == ["one", "two"]
        list(trainer(folder, method, seed=seed, read=read).run(plan(1)))
        information.append(information_of(method))
    assert all_same_bits(information[0], information[1])
    assert not all_same_bits(information[0], information[2])


def test_a_text_alone_tells_nothing_of_a_vision_tower(folder: Path) -> None:
    method = EWC(samples=9)
    list(trainer(folder, method, read={"general": [ITEMS[4]]}, parts=["vision"]).run(plan(1)))
    assert information_of(method).keys()
    assert all((value == 0).all() for value in information_of(method).values())


def test_settings_and_sets_that_hold_nothing_are_refused() -> None:
    assert set(EWC(strength=-1, samples=0).problems()) == {"strength", "samples"}
    assert not EWC().problems()
    for nothing in (EWC(), EWC(reference=[])):
        with pytest.raises(UserError, match=r"method\.reference"):
            nothing.begin(trainee_of({"w": torch.ones(1)}, read={"general": []}, targets=[ITEMS]))
