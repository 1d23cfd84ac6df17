"""MDGD and its masked variant: maths in NumPy, drift against whole-model passes, and what may not move."""

from __future__ import annotations

import copy
import io
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from forgetbench.config import ModelConfig, RecipeConfig
from forgetbench.core.errors import UserError
from forgetbench.core.records import AnswerKind, ImageRef, Precision, Sample
from forgetbench.data.collate import Encoder
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.methods.base import Batch, Method, TrainingContext
from forgetbench.methods.drift import VisualDrift
from forgetbench.methods.lora import LoRA
from forgetbench.methods.mdgd import MDGD, Scope, When, project
from forgetbench.methods.mdgd_gm import MDGDGM
from forgetbench.models.load import load_model
from forgetbench.training.loop import Trainer
from forgetbench.training.plan import Stage
from forgetbench.training.prepare import prepare
from tests.support.families import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
Gradients = dict[str, Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES["llava"](tmp_path_factory.mktemp("models") / "llava")


def picture(i: int) -> tuple[ImageRef, ...]:
    stream = io.BytesIO()
    pixels = np.frombuffer(random.Random(i).randbytes(16 * 16 * 3), np.uint8).reshape(16, 16, 3)
    Image.fromarray(pixels).save(stream, "PNG")
    return (ImageRef("memory", f"{i}.png", stream.getvalue()),)


def item(i: int, images: tuple[ImageRef, ...]) -> Sample:
    return Sample.question(str(i), "What is it? " * (1 + i % 3), ("A", "dark red")[i % 2], AnswerKind.text, images)


SAMPLES = [item(i, picture(i % 4)) for i in range(8)]


def stage(steps: int, samples: list[Sample] | None = None) -> list[Stage]:
    return [Stage("toy", MixedStream([WeightedSet("toy", samples or SAMPLES, 1.0)], [], 0.0, seed=3), steps, "digest")]


def trainer(folder: Path, method: Method, **changes: Any) -> Trainer:
    values: dict[str, Any] = {"lr": 1e-2, "parts": ["language"], "batch_size": 4, "precision": Precision.fp32}
    recipe, loaded = RecipeConfig(**(values | changes)), load_model(ModelConfig(path=str(folder)))
    prepare(loaded.model, [recipe], method, seed=0)
    return Trainer(loaded, Encoder(loaded.processor), method, recipe, seed=0)


def trained(folder: Path, method: Method, steps: int = 3, **changes: Any) -> Gradients:
    subject = trainer(folder, method, **changes)
    list(subject.run(stage(steps)))
    return {name: parameter.detach().clone() for name, parameter in subject.trainable.items()}


def same(first: Gradients, second: Gradients) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def gradients(seed: int) -> Gradients:
    torch.manual_seed(seed)
    return {"a": torch.randn(7, 5), "b": torch.randn(11), "c": torch.randn(3, 3) * 1e-6}


@pytest.mark.parametrize("strength", [0.0, 0.3])
@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("when", list(When))
def test_projection_is_the_formula(when: When, scope: Scope, strength: float) -> None:
    task, drift = gradients(0), gradients(1)
    t = {name: value.double().numpy().copy() for name, value in task.items()}
    v = {name: value.double().numpy() for name, value in drift.items()}
    dots = {name: (t[name] * v[name]).sum() for name in t}
    assert min(dots.values()) < 0 < max(dots.values())  # both kinds occur
    squares = {name: (v[name] ** 2).sum() for name in t}
    if scope is Scope.all:
        dots, squares = dict.fromkeys(t, sum(dots.values())), dict.fromkeys(t, sum(squares.values()))
    project(task, drift, when, scope, strength)
    for name, value in t.items():
        removed = 0 if when is When.conflict and dots[name] >= 0 else dots[name] / squares[name]
        expected = value - removed * v[name] + strength * v[name]
        np.testing.assert_allclose(task[name].numpy(), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("scope", list(Scope))
def test_what_is_left_is_orthogonal_to_the_drift(scope: Scope) -> None:
    task, drift = gradients(2), gradients(3)
    project(task, drift, When.always, scope, 0.0)
    groups = [[name] for name in task] if scope is Scope.tensor else [list(task)]
    for group in groups:
        a = torch.cat([task[name].flatten() for name in group]).double()
        b = torch.cat([drift[name].flatten() for name in group]).double()
        assert abs(a @ b) / (a.norm() * b.norm()) < 1e-6


def test_without_drift_nothing_changes() -> None:
    task = gradients(0)
    before = copy.deepcopy(task)
    project(task, {name: torch.zeros_like(gradient) for name, gradient in task.items()}, When.always, Scope.tensor, 0.0)
    assert same(task, before)


def test_several_steps_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear "model" in float64: h = W x, L_task = |W x - y|^2 / 2, L_v = mean |(W - W0) x|_1, gradient descent."""
    generator = np.random.default_rng(0)
    x_ND, y_NK, w0_KD = generator.normal(size=(6, 4)), generator.normal(size=(6, 3)), generator.normal(size=(3, 4))
    inputs, answers = torch.tensor(x_ND), torch.tensor(y_NK)
    weight = nn.Parameter(torch.tensor(w0_KD.copy()))
    start = weight.detach().clone()
    by_hand = SimpleNamespace(loss=lambda _: (inputs @ (weight - start).T).abs().sum(-1).mean())
    monkeypatch.setattr("forgetbench.methods.drift.VisualDrift", lambda *_: by_hand)
    method = MDGD(strength=0.1)
    context = TrainingContext(None, {"w": weight}, SimpleNamespace(total=lambda tensor: tensor))  # type: ignore[arg-type]
    method.begin(context)
    w_KD, moved = w0_KD.copy(), []
    for _ in range(5):
        method.penalty(context, None, None)  # type: ignore[arg-type]
        ((inputs @ weight.T - answers) ** 2).sum().div(2).backward()  # type: ignore[no-untyped-call]
        method.edit_gradients(context)
        assert weight.grad is not None
        with torch.no_grad():
            weight -= 0.05 * weight.grad
        weight.grad = None
        g_t = (x_ND @ w_KD.T - y_NK).T @ x_ND
        g_v = np.sign(x_ND @ (w_KD - w0_KD).T).T @ x_ND / len(x_ND)
        square = (g_v**2).sum()
        g = g_t - ((g_t * g_v).sum() / square if square else 0) * g_v + 0.1 * g_v
        w_KD = w_KD - 0.05 * g
        np.testing.assert_allclose(weight.detach().numpy(), w_KD, rtol=1e-12, atol=1e-12)
        moved.append(square)
    assert moved[0] == 0  # no drift at the start: a plain step
    assert min(moved[1:]) > 0


@torch.no_grad()
def hidden(model: Any, batch: Batch, layer: int) -> Tensor:
    """Hidden states (B, T, D) through the library's own interface, which normalises the last layer's."""
    outputs = model(**batch.inputs, output_hidden_states=True, use_cache=False)
    return outputs.hidden_states[layer]


@pytest.mark.parametrize("layer", [0, 1, -2])
def test_drift_is_the_mean_distance_of_hidden_states_at_picture_tokens(folder: Path, layer: int) -> None:
    subject = trainer(folder, Method(), parts=["projector", "language"])
    subject.passes.plan(stage(1))
    model, passes = subject.context.model, subject.passes
    base = copy.deepcopy(model)
    drift = VisualDrift(subject.context, layer, 1 << 20)
    with torch.no_grad():
        for parameter in subject.trainable.values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    samples = [*SAMPLES[:3], item(9, ()), item(10, (*picture(0), *picture(1)))]
    batch = passes.batch(samples)
    passes.forward(batch)
    loss = drift.loss(batch)
    assert loss is not None
    places_BT = batch.inputs["input_ids"] == model.config.image_token_index
    distance_BT = (hidden(model, batch, layer) - hidden(base, batch, layer)).abs().sum(-1)
    expected = sum(distance_T[places_T].mean() for distance_T, places_T in zip(distance_BT, places_BT, strict=True)
                   if places_T.any()) / len(samples)  # fmt: skip
    assert float(expected) > 0.1
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4)
    assert drift.noise < 1e-4


def test_cached_references_change_no_bit(folder: Path) -> None:
    assert same(trained(folder, MDGD(cache_gb=0)), trained(folder, MDGD()))


def test_it_differs_from_plain_fine_tuning_from_the_second_step_on(folder: Path) -> None:
    assert same(trained(folder, MDGD(), steps=1), trained(folder, Method(), steps=1))
    assert not same(trained(folder, MDGD(), steps=2), trained(folder, Method(), steps=2))


def test_micro_batches_make_no_difference(folder: Path) -> None:
    whole, split = (trained(folder, MDGD(), lr=1e-3, gradient_accumulation=n) for n in (1, 2))
    start = trained(folder, Method(), steps=0)
    for name in whole:
        moved = (whole[name] - start[name]).abs().max()
        assert (whole[name] - split[name]).abs().max() <= 0.05 * moved, name


@pytest.mark.parametrize("parts", [["vision"], ["projector"], ["vision", "projector", "language"]], ids="+".join)
def test_every_part_can_be_trained(folder: Path, parts: list[str]) -> None:
    assert not same(trained(folder, MDGD(), parts=parts), trained(folder, Method(), parts=parts))


@pytest.mark.parametrize("method", [MDGD, MDGDGM])
@pytest.mark.parametrize("family", ["idefics3", "qwen3_vl", "paligemma", "gemma3", "minicpmv4_6"])
def test_other_families(tmp_path: Path, family: str, method: type[MDGD]) -> None:
    several = [] if family == "paligemma" else [item(8, (*picture(0), *picture(1)))]
    chosen = method()
    subject = trainer(FAMILIES[family](tmp_path / family), chosen)
    assert list(subject.run(stage(2, [*SAMPLES[:3], *several])))
    assert subject.delta()
    assert 0 <= chosen.drift.noise < 1e-4  # the reference is the model's own pass


def test_text_alone_is_a_plain_step(folder: Path) -> None:
    texts = [item(i, ()) for i in range(4)]
    results = []
    for method in (Method(), MDGD()):
        subject = trainer(folder, method)
        list(subject.run(stage(2, texts)))
        results.append({name: parameter.detach().clone() for name, parameter in subject.trainable.items()})
    assert same(*results)


def test_adapters_are_refused(folder: Path) -> None:
    subject = trainer(folder, LoRA(rank=2))
    with pytest.raises(UserError, match="no LoRA form"):
        MDGD().begin(subject.context)


@pytest.mark.parametrize("changes", [{"parts": ["language"]}, {"parts": ["language"], "language_last_layers": 1}])
def test_a_layer_that_cannot_drift_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    layer = 0 if "language_last_layers" not in changes else 1
    with pytest.raises(UserError, match=f"nothing that trains reaches layer {layer}"):
        next(trainer(folder, MDGD(layer=layer), **changes).run(stage(1)))


def test_masked_entries_never_move(folder: Path) -> None:
    method = MDGDGM(density=0.2, batches=2)
    subject = trainer(folder, method, weight_decay=0.1)
    start = {name: parameter.detach().clone() for name, parameter in subject.trainable.items()}
    for _ in subject.run(stage(4)):
        for name, parameter in subject.trainable.items():
            moved = (parameter.detach() != start[name]).flatten().nonzero()[:, 0]
            assert set(moved.tolist()) <= set(method.state()[name].tolist())
            assert len(method.state()[name]) == max(1, round(0.2 * parameter.numel()))
    assert subject.delta()
    moments = [value for key, value in subject.resume_point(4).tensors.items() if "exp_avg" in key]
    chosen = sum(map(len, method.state().values()))
    assert sum(moment.numel() for moment in moments) == 2 * chosen


def test_the_mask_holds_the_largest_task_gradients(folder: Path) -> None:
    method = MDGDGM(density=0.1, batches=2)
    subject = trainer(folder, method)
    next(subject.run(stage(3)))
    plain = trainer(folder, Method())
    plain.passes.plan(stage(3))
    scores = {name: torch.zeros_like(parameter) for name, parameter in plain.trainable.items()}
    for batches in plain.passes.upcoming(2):
        plain.context.model.zero_grad()
        for batch in batches:
            plain.passes.backward(batch, plain.passes.forward(batch))
        for name, parameter in plain.trainable.items():
            scores[name] += 0 if parameter.grad is None else parameter.grad.abs()
    for name, score in scores.items():
        chosen = torch.zeros(score.numel(), dtype=torch.bool)
        chosen[method.state()[name]] = True
        kept, dropped = score.flatten()[chosen], score.flatten()[~chosen]
        if len(dropped):
            assert kept.min() >= dropped.max() * (1 - 1e-4)


def test_training_all_entries_is_plain_fine_tuning(folder: Path) -> None:
    everything = trained(folder, MDGDGM(density=1.0, batches=1))
    assert same(everything, trained(folder, Method()))


@pytest.mark.parametrize(("field", "value"), [("strength", -1.0), ("cache_gb", -1.0), ("density", 0.0), ("batches", 0)])
def test_settings_out_of_range_are_named(field: str, value: float) -> None:
    assert set(MDGDGM(**{field: value}).problems()) == {field}
