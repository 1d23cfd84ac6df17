"""LoRA experts: layers against NumPy, MoELoRA's router, MR-LoRA's stages and its router over tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from forgetbench.config import ModelConfig
from forgetbench.core.errors import UserError
from forgetbench.evaluation.swap import WeightSwap
from forgetbench.methods.experts import ExpertSelection, ItemRoutedLinear, TokenRoutedLinear
from forgetbench.methods.lora import LoRA
from forgetbench.methods.moe_lora import MoELoRA
from forgetbench.methods.mr_lora import MRLoRA
from forgetbench.methods.task_router import FLOOR, SHRINKAGE, TaskRouter, discriminants, task_router
from forgetbench.models.checkpoint import load_resume, save_checkpoint, save_resume
from forgetbench.models.load import load_model
from forgetbench.models.parts import part_of
from forgetbench.training.loop import Resume, Trainer
from forgetbench.training.plan import Stage
from forgetbench.training.variants import OperationContext
from tests.support.families import FAMILIES, llava
from tests.support.runs import ITEMS, all_same_bits, plan, same_bits, snapshot, trainer

SHORT = [item for item in ITEMS if len(item.prompt) < 30]
LONG = [item for item in ITEMS if len(item.prompt) > 30]
"""Two tasks: another question."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


def layer(kind: type[Any], experts: int = 3, rank: int = 2, scale: float = 0.7) -> Any:
    """Five inputs, four outputs, and experts that do something."""
    torch.manual_seed(1)
    made = kind(nn.Linear(5, 4), experts, rank, scale, dropout=0.5).eval()
    for b_OR in made.lora_B:
        nn.init.normal_(b_OR)
    return made


def by_hand(mixture: Any, x_D: Tensor, gates_E: np.ndarray) -> np.ndarray:
    """One input through a layer, expert by expert in float64."""
    x, base = x_D.double().numpy(), mixture.base_layer
    y = base.weight.detach().double().numpy() @ x + base.bias.detach().double().numpy()
    for gate, a, b in zip(gates_E, mixture.lora_A, mixture.lora_B, strict=True):
        y = y + 0.7 * gate * (b.detach().double().numpy() @ (a.detach().double().numpy() @ x))
    return y


def softmax_by_hand(mixture: Any, x_D: Tensor) -> np.ndarray:
    scores = mixture.router.detach().double().numpy() @ x_D.double().numpy()
    return np.exp(scores) / np.exp(scores).sum()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_a_mixture_is_the_sum_over_experts_weighed_by_softmax(shape: tuple[int, ...]) -> None:
    mixture, x = layer(TokenRoutedLinear), torch.randn(*shape, 5)
    expected = [by_hand(mixture, row, softmax_by_hand(mixture, row)) for row in x.reshape(-1, 5)]
    y = mixture(x)
    assert y.shape == (*shape, 4)
    assert np.abs(y.detach().numpy().reshape(-1, 4) - expected).max() < 1e-5
    with torch.autocast("cpu", torch.bfloat16):
        assert (mixture(x).float() - y).abs().max() < 0.1


def test_items_get_their_own_experts_and_none_without_a_decision() -> None:
    mixture, x_BTD = layer(ItemRoutedLinear), torch.randn(2, 3, 5)
    mixture.selection = ExpertSelection()
    assert torch.equal(mixture(x_BTD), mixture.base_layer(x_BTD))
    mixture.selection.gates = torch.tensor([[0.0, 1, 0], [0, 0, 1]])
    pairs = zip(mixture.selection.gates, x_BTD, strict=True)
    expected = [[by_hand(mixture, x_D, gates.numpy()) for x_D in rows] for gates, rows in pairs]
    assert np.abs(mixture(x_BTD).detach().numpy() - expected).max() < 1e-5
    with pytest.raises(UserError, match="tokens without their items"):
        mixture(x_BTD.flatten(0, 1))
    mixture.selection.gates = torch.tensor([0.0, 1, 0])
    flat = mixture(x_BTD.flatten(0, 1)).detach().numpy()
    assert np.abs(flat[:3] - expected[0]).max() < 1e-5


def test_gates_sum_to_one_and_differ_between_tokens() -> None:
    mixture = layer(TokenRoutedLinear)
    gates_TE = mixture.gates(torch.randn(6, 5))
    assert torch.allclose(gates_TE.sum(-1), torch.ones(6))
    assert (gates_TE > 0).all()
    assert (gates_TE[1:] - gates_TE[:-1]).abs().amax(-1).min() > 0.01


def test_gradients_reach_the_router_and_every_expert() -> None:
    mixture = layer(TokenRoutedLinear)
    mixture(torch.randn(6, 5)).square().sum().backward()
    added = {name: value for name, value in mixture.named_parameters() if not name.startswith("base_layer")}
    assert len(added) == 7
    assert all((value.grad != 0).any() for value in added.values())
    assert all(value.grad is None for value in mixture.base_layer.parameters())


def test_other_weights_can_stand_in_for_a_layer_s_own() -> None:
    mixture, x = layer(TokenRoutedLinear), torch.randn(6, 5)
    zeros = {f"lora_B.{e}": torch.zeros(4, 2) for e in range(3)}
    assert torch.equal(torch.func.functional_call(mixture, zeros, (x,)), mixture.base_layer(x))


def test_a_trained_router_sends_two_tasks_to_different_experts() -> None:
    torch.manual_seed(0)
    mixture = TokenRoutedLinear(nn.Linear(4, 4, bias=False), experts=2, rank=2, scale=1.0, dropout=0.0)
    sides = torch.tensor([[2.0, 0, 0, 0], [-2.0, 0, 0, 0]])
    wanted = torch.randn(2, 4, 4)  # what each task adds to the base

    def drawn(n: int, task: int) -> Tensor:
        return sides[task] + torch.randn(n, 4)

    optimiser = torch.optim.Adam([value for value in mixture.parameters() if value.requires_grad], lr=0.02)
    for _ in range(150):
        x_BD = torch.cat([drawn(16, 0), drawn(16, 1)])
        added = torch.cat([x_BD[:16] @ wanted[0], x_BD[16:] @ wanted[1]])
        (mixture(x_BD) - mixture.base_layer(x_BD) - added).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    first, second = (mixture.gates(drawn(200, task)).mean(0) for task in (0, 1))
    assert first.argmax() != second.argmax()
    assert (first - second).abs().min() > 0.5


def correlated(n: int, task: int) -> Tensor:
    """States (n, 40) whose tasks differ by less than what all of them vary along four directions."""
    drawn = torch.Generator().manual_seed(5)
    along_KD, apart_KD = (torch.randn(k, 40, generator=drawn, dtype=torch.float64) for k in (4, 3))
    noise_ND = 0.3 * torch.randn(n, 40, dtype=torch.float64)
    return 3 + 2 * torch.randn(n, 4, dtype=torch.float64) @ along_KD + 0.5 * apart_KD[task] + noise_ND


def test_discriminants_are_those_of_the_inverse_covariance() -> None:
    torch.manual_seed(0)
    tasks = [correlated(n, task) for task, n in enumerate((7, 9, 5))]
    weight_KD, bias_K = (array.numpy() for array in discriminants(tasks))
    arrays = [states.numpy() for states in tasks]
    means = np.stack([task_array.mean(0) for task_array in arrays])
    residuals = np.concatenate([task_array - mean for task_array, mean in zip(arrays, means, strict=True)])
    variance = (residuals**2).mean(0)
    sd = np.sqrt(variance + FLOOR * variance.mean())
    x = residuals / sd
    covariance = (1 - SHRINKAGE) * x.T @ x / len(x) + SHRINKAGE * np.eye(40)
    state, centre = correlated(1, 1).numpy()[0], means.mean(0)
    expected = []
    for mean in (means - centre) / sd:
        solved = np.linalg.solve(covariance, mean)
        expected.append(solved @ ((state - centre) / sd) - solved @ mean / 2)
    assert np.allclose(weight_KD @ state + bias_K, expected, rtol=1e-8)


def test_the_router_tells_held_out_items_of_its_tasks_apart_and_never_picks_an_unseen_one() -> None:
    torch.manual_seed(0)
    router = TaskRouter(4, 40, layer=0)
    router.fit([correlated(20, task) for task in range(3)])
    for task in range(3):
        assert (router.pick(correlated(100, task).float()) == task).float().mean() > 0.9
    assert set(router.pick(10 * torch.randn(500, 40)).tolist()) == {0, 1, 2}
    router.fit([correlated(20, 0)])
    assert set(router.pick(10 * torch.randn(50, 40)).tolist()) == {0}
    router.fit([torch.ones(1, 40)])  # nothing varies
    assert router.pick(torch.randn(3, 40)).tolist() == [0, 0, 0]


def staged(*tasks: Sequence[Any]) -> list[Stage]:
    """Two steps on each of these tasks."""
    return [replace(stage, items=list(items)) for stage, items in zip(plan(*[2] * len(tasks)), tasks, strict=True)]


@torch.no_grad()
def logits(model: Any, inputs: dict[str, Any]) -> Tensor:
    return model.eval()(**inputs, use_cache=False).logits


def router_of(model: Any) -> TaskRouter:
    router = task_router(model)
    assert router is not None
    return router


METHODS: dict[str, Callable[[], LoRA]] = {
    "moe_lora": lambda: MoELoRA(dropout=0.3),
    "mr_lora": lambda: MRLoRA(rank=2, dropout=0.3, router_samples=3),
}


@pytest.mark.parametrize("family", ["llava", "idefics3"])
@pytest.mark.parametrize("name", METHODS)
def test_untrained_experts_are_the_base_model_to_the_bit(tmp_path: Path, family: str, name: str) -> None:
    path = FAMILIES[family](tmp_path / family)
    subject = trainer(path, METHODS[name](), stages=2, parts=["language"])
    inputs = dict(subject.passes.batch(ITEMS[:3]).inputs)
    model, base = subject.context.model, load_model(ModelConfig(path=str(path))).model
    assert torch.equal(logits(model, inputs), logits(base, inputs))
    if name == "mr_lora":
        router_of(model).set_expert(1)
        assert torch.equal(logits(model, inputs), logits(base, inputs))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(logits(model, inputs), logits(base, inputs))
    assert {part_of(parameter_name) for parameter_name in subject.trainable} == {"language"}
    assert all("lora_" in parameter_name or parameter_name.endswith(".router") for parameter_name in subject.trainable)


def test_mixed_experts_all_move_in_every_stage(folder: Path) -> None:
    subject = trainer(folder, MoELoRA(), stages=2, parts=["language"])
    before = snapshot(subject)
    for step, _ in enumerate(subject.run(staged(SHORT, LONG)), start=1):
        if step % 2 == 0:
            now = snapshot(subject)
            assert not any(same_bits(now[name], before[name]) for name in now)
            before = now


@pytest.mark.parametrize("family", ["llava", "idefics3"])
def test_a_stage_moves_its_own_expert_only_and_its_checkpoint_knows_the_tasks_so_far(
    tmp_path: Path, family: str
) -> None:
    path, method = FAMILIES[family](tmp_path / family), MRLoRA(rank=2, router_samples=3)
    subject = trainer(path, method, stages=3, parts=["language"], weight_decay=0.1)
    inputs = dict(subject.passes.batch(ITEMS[:4]).inputs)
    model = subject.context.model
    untrained, before, saved = logits(model, inputs), snapshot(subject), []
    for step, _ in enumerate(subject.run(staged(SHORT, LONG, ITEMS)), start=1):
        if step % 2:
            continue
        now = snapshot(subject)
        for name, value in now.items():
            assert same_bits(value, before[name]) is (not name.endswith(f".{step // 2 - 1}")), (step, name)
        before = now
        assert router_of(model).known.tolist() == [float(task < step // 2) for task in range(3)]
        saved.append((save_checkpoint(tmp_path, step, subject.delta(), {"method": {}}).delta(), logits(model, inputs)))
    scored = load_model(ModelConfig(path=str(path))).model
    torch.manual_seed(0)
    method.attach(scored, 3)
    swap, router = WeightSwap(scored), router_of(scored)
    for stage, (delta, expected) in enumerate(saved):
        swap.to(delta)
        router.set_expert(stage)
        assert torch.equal(logits(scored, inputs), expected)
        assert (expected - untrained).abs().max() > 1e-3
        router.set_expert(2)
        assert torch.equal(logits(scored, inputs), untrained) is (stage < 2)
        assert router.known.sum() == stage + 1
    swap.to({})
    assert router.known.sum() == 0


def test_an_expert_learns_what_a_lora_run_on_its_stage_alone_learns(folder: Path) -> None:
    single = trainer(folder, MRLoRA(rank=2, router_samples=3), stages=1, parts=["language"])
    later = trainer(folder, MRLoRA(rank=2, router_samples=3), stages=2, parts=["language"])
    second = {name: value for name, value in later.trainable.items() if name.endswith(".1")}
    with torch.no_grad():
        for name, value in second.items():
            value.copy_(single.trainable[f"{name[:-2]}.0"])
    losses = [report.loss for report in single.run(staged(LONG))]
    assert [report.loss for report in later.run(staged(SHORT, LONG))][2:] == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_four_steps_are_three_a_resume_point_on_disk_and_one(folder: Path, tmp_path: Path, name: str) -> None:
    def fresh() -> Trainer:
        return trainer(folder, METHODS[name](), stages=2, parts=["language"], weight_decay=0.1)

    def kept(subject: Trainer) -> dict[str, Tensor]:
        return {key: value.clone() for key, value in subject.delta().items()}

    stages = staged(SHORT, LONG)
    straight, first, second = fresh(), fresh(), fresh()
    deltas = []
    losses = []
    for report in straight.run(stages):
        losses.append(report.loss)
        deltas.append(kept(straight))
    losses_again = [report.loss for report in islice(first.run(stages), 3)]
    save_resume(tmp_path, first.resume_point(3))
    point = load_resume(tmp_path)
    assert point is not None
    losses_again += [report.loss for report in second.run(stages, Resume(point, deltas[1]))]
    assert losses_again == losses
    assert all_same_bits(kept(second), deltas[-1])


def test_the_same_items_are_kept_of_a_task_in_every_stage(folder: Path) -> None:
    subject = trainer(folder, MRLoRA(rank=2, router_samples=2), stages=2, parts=["language"])
    asked: list[str] = []
    batch = subject.passes.batch
    subject.passes.batch = lambda samples: asked.extend(sample.id for sample in samples) or batch(samples)  # type: ignore
    list(subject.run(staged(SHORT, LONG)))
    assert len(asked) == 6
    assert asked[:2] == asked[2:4]
    assert set(asked[4:]) <= {sample.id for sample in LONG}


def test_a_part_that_would_train_in_full_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(UserError, match="projector would train in full"):
        trainer(folder, MRLoRA(), stages=2)


@pytest.mark.parametrize("name", METHODS)
def test_operations_after_training_refuse_experts(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"method={name}: which expert counts depends on the input"):
        OperationContext(load_model(ModelConfig(path=str(folder))).model, METHODS[name](), 2, seed=0)


def test_a_layer_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"method\.layer: there is no layer 9"):
        MRLoRA(layer=9).attach(load_model(ModelConfig(path=str(folder))).model, 2)


def test_settings_without_a_form_with_experts_are_refused() -> None:
    assert set(MoELoRA(experts=1, weight_decomposed=True, rank=0).problems()) == {
        "experts",
        "weight_decomposed",
        "rank",
    }
    assert set(MRLoRA(router_samples=0, parts=["language", "vision"], weight_decomposed=True).problems()) == {
        "router_samples",
        "parts",
        "weight_decomposed",
    }
    assert not MoELoRA(rank_stabilised=True).problems()
    assert not MRLoRA(rank_stabilised=True).problems()
