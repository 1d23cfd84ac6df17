"""Model Tailor against float64 computations of another form: solved least squares instead of Cholesky factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from forgetbench.core.errors import UserError
from forgetbench.methods.base import Batch
from forgetbench.methods.model_tailor import Compensation, ModelTailor, first_items
from forgetbench.methods.operation import Trained
from forgetbench.methods.surgeon import hessians, linear_layers
from tests.support.tuned import tuned_llava

Matrix = NDArray[np.float64]
ROWS, COLUMNS, INPUTS = 6, 200, 500  # more columns than a block of 128, and a last block that is not full


def layer(seed: int = 0) -> tuple[Matrix, Matrix, Matrix]:
    """(w0, w, inputs): inputs that go together, so that one column can stand in for others."""
    rng = np.random.default_rng(seed)
    x_NI = rng.normal(size=(INPUTS, 40)) @ rng.normal(size=(40, COLUMNS)) + 0.5 * rng.normal(size=(INPUTS, COLUMNS))
    base = rng.normal(size=(ROWS, COLUMNS))
    tuned = base + 0.3 * rng.normal(size=(ROWS, COLUMNS))
    tuned[0] = base[0] + 0.25  # a row with nothing to choose by the size of the change
    return base, tuned, x_NI


def hessian(x_NI: Matrix) -> Matrix:
    return 2 / len(x_NI) * x_NI.T @ x_NI


def by_least_squares(
    base: Matrix, tuned: Matrix, h: Matrix, density: float, sensitivity: float, sign: float
) -> tuple[Matrix, Matrix]:
    """(Weight, kept entries). Column by column, the free columns F to the right move by the minimiser of the error."""
    h = h + 0.01 * np.diag(h).mean() * np.eye(COLUMNS)
    shifts, precisions = [], []
    for i in range(COLUMNS):
        free = np.linalg.solve(h[i + 1 :, i + 1 :], h[i + 1 :, i])  # H_FF^-1 H_Fi
        shifts.append(free)
        precisions.append(h[i, i] - h[i, i + 1 :] @ free)  # 1 / U_ii^2
    scores = (1 - sensitivity) * z(np.abs(tuned - base)) + sensitivity * z(tuned**2 * np.array(precisions))
    kept = np.zeros(base.size, dtype=bool)
    kept[np.argsort(-scores.ravel())[: round(density * base.size)]] = True
    kept = kept.reshape(base.shape)
    w = tuned.copy()
    for i in range(COLUMNS):
        change = np.where(kept[:, i], 0.0, base[:, i] - w[:, i])
        w[:, i] += change
        w[:, i + 1 :] += sign * np.outer(change, shifts[i])
    return w, kept


def z(values: Matrix) -> Matrix:
    standardised = np.zeros_like(values)
    for row in range(ROWS):
        for start in (0, 128):
            block = values[row, start : start + 128]
            if block.std() > 1e-6:
                standardised[row, start : start + 128] = (block - block.mean()) / block.std(ddof=1)
    return standardised


def tailored(method: ModelTailor, base: Matrix, tuned: Matrix, h: Matrix) -> Matrix:
    tensors = (torch.tensor(array, dtype=torch.float32) for array in (base, tuned, h))
    return method.tailor(*tensors).double().numpy()


@pytest.mark.parametrize("density", [0.1, 0.5])
@pytest.mark.parametrize(("compensation", "sign"), [("obs", -1.0), ("authors", 1.0), ("none", 0.0)])
def test_a_layer_is_that_of_an_independent_float64_computation(density: float, compensation: str, sign: float) -> None:
    base, tuned, x_NI = layer()
    expected, kept = by_least_squares(base, tuned, hessian(x_NI), density, 0.2, sign)
    method = ModelTailor(density=density, compensation=Compensation(compensation))
    weights = tailored(method, base, tuned, hessian(x_NI))
    np.testing.assert_array_equal(weights[~kept], base.astype(np.float32)[~kept])
    np.testing.assert_allclose(weights, expected, atol=2e-4 * np.abs(expected).max())
    assert (sign == 0) == np.allclose(weights[kept], tuned[kept], atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_kept_takes_up_what_returns(seed: int) -> None:
    base, tuned, x_NI = layer(seed)
    errors = {}
    for compensation in Compensation:
        method = ModelTailor(density=0.5, compensation=compensation)
        w = tailored(method, base, tuned, hessian(x_NI))
        errors[compensation] = np.linalg.norm((w - tuned) @ x_NI.T)
    assert errors[Compensation.obs] < 0.8 * errors[Compensation.none]
    assert errors[Compensation.authors] > 1.2 * errors[Compensation.none]


def test_sensitivity_weighs_the_two_scores() -> None:
    base, tuned, x_NI = layer()
    for sensitivity in (0.0, 1.0):
        _, kept = by_least_squares(base, tuned, hessian(x_NI), 0.1, sensitivity, 0.0)
        method = ModelTailor(sensitivity=sensitivity, compensation=Compensation.none)
        weights = tailored(method, base, tuned, hessian(x_NI))
        np.testing.assert_array_equal(weights != base.astype(np.float32), kept)


def test_a_layer_that_saw_nothing_keeps_its_largest_changes_as_they_are() -> None:
    base, tuned, _ = layer()
    weights = tailored(ModelTailor(), base, tuned, np.zeros((COLUMNS, COLUMNS)))
    expected, _ = by_least_squares(base, tuned, np.eye(COLUMNS), 0.1, 0.0, 0.0)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


class Two(nn.Module):
    """A picture encoder and a language layer with live names like a model's, and a head on the last tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.ModuleDict(
            {
                "vision_tower": nn.ModuleDict({"fc": nn.Linear(3, 3)}),
                "language_model": nn.ModuleDict({"fc": nn.Linear(3, 4), "norm": nn.LayerNorm(4)}),
            }
        )
        self.lm_head = nn.Linear(4, 5, bias=False)
        self.unused = nn.Linear(2, 2)

    def forward(self, pixels: Tensor, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        self.model["vision_tower"]["fc"](pixels)
        hidden = self.model["language_model"]["norm"](self.model["language_model"]["fc"](tokens))
        return self.lm_head(hidden[:, -2:])


class Shown:
    """Passes over two micro-batches of three and two items, padded on both sides."""

    seed = 0

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.shown = 0
        generator = torch.Generator().manual_seed(1)
        masks = ([[0, 1, 1, 1], [1, 1, 1, 0], [0, 0, 1, 1]], [[1, 1, 1, 1], [0, 1, 1, 0]])
        self._batches = [self._batch(torch.tensor(mask), generator) for mask in masks]

    def _batch(self, mask: Tensor, generator: torch.Generator) -> Batch:
        items = len(mask)
        samples: Any = range(items)
        # As many patches as tokens, so that a mask could be put on them by mistake.
        inputs = {
            "pixels": torch.randn(items, 4, 3, generator=generator),
            "tokens": torch.randn(items, 4, 3, generator=generator),
            "attention_mask": mask,
        }
        return Batch(inputs, torch.zeros(items, 1), samples, (), 1.0, items)

    def upcoming(self, steps: int) -> Iterator[Sequence[Batch]]:
        return iter([self._batches, self._batches][:steps])

    def batch(self, samples: Sequence[Any]) -> Batch:
        return replace(self._batches[0], samples=samples)

    def reference(self, batch: Batch, weights: Mapping[str, Tensor]) -> Any:
        self.shown += 1
        return functional_call(self.model, dict(weights), (), dict(batch.inputs))


def trained(*names: str) -> Trained:
    model = Two()
    base = {name: tensor.detach().clone() for name, tensor in model.named_parameters() if not names or name in names}
    tuned = {name: tensor + 0.5 * torch.randn_like(tensor) for name, tensor in base.items()}
    passes: Any = Shown(model)
    return Trained(model, base, tuned, (), {}, passes)


def test_h_holds_every_real_token_of_the_tuned_model_and_every_patch() -> None:
    models = trained()
    layers = linear_layers(models.model, models.tuned)
    batches = next(models.passes.upcoming(1))
    measured = {name: h.numpy() for name, h in hessians(layers, models.passes, models.tuned, batches)}
    real = [batch.inputs["attention_mask"].bool() for batch in batches]
    tokens = torch.cat([batch.inputs["tokens"][mask] for batch, mask in zip(batches, real, strict=True)])
    pixels = torch.cat([batch.inputs["pixels"].flatten(0, 1) for batch in batches])
    tuned = models.tuned
    hidden = []
    for batch, mask in zip(batches, real, strict=True):
        fc = batch.inputs["tokens"] @ tuned["model.language_model.fc.weight"].T + tuned["model.language_model.fc.bias"]
        norm = (fc - fc.mean(-1, keepdim=True)) / (fc.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        norm = norm * tuned["model.language_model.norm.weight"] + tuned["model.language_model.norm.bias"]
        hidden.append(norm[:, -2:][mask[:, -2:]])
    for name, x in (("model.language_model.fc", tokens), ("model.vision_tower.fc", pixels), ("lm_head", hidden)):
        rows = (torch.cat(x) if isinstance(x, list) else x).detach().double().numpy()
        np.testing.assert_allclose(measured[f"{name}.weight"], hessian(rows), atol=1e-5)
    assert not measured["unused.weight"].any()


def test_only_linear_weights_stay_changed_and_no_more_of_them_than_asked_for() -> None:
    models = trained()
    ((setting, tensors),) = ModelTailor(density=0.25, calibration=5).variants(models)
    assert setting == ""
    assert set(tensors) == {name for name in models.tuned if name.endswith("weight") and "norm" not in name}
    for name, w in tensors.items():
        assert int((w != models.base[name]).sum()) == round(0.25 * w.numel())


def test_memory_for_one_h_at_a_time_takes_more_passes_to_the_same_bits() -> None:
    models = trained()
    ((_, together),) = ModelTailor(calibration=5).variants(models)
    assert models.passes.shown == 2
    ((_, apart),) = ModelTailor(calibration=5, hessian_gb=1e-9).variants(models)
    assert models.passes.shown == 2 + 2 * 4
    assert together.keys() == apart.keys()
    assert all(torch.equal(together[name], apart[name]) for name in together)


@pytest.mark.parametrize(("items", "sizes"), [(2, [2]), (3, [3]), (5, [3, 2]), (7, [3, 2, 2]), (99, [3, 2, 3, 2])])
def test_as_many_items_calibrate_as_asked_for(items: int, sizes: list[int]) -> None:
    assert [len(batch.samples) for batch in first_items(Shown(Two()), items)] == sizes


def test_a_run_that_changed_no_linear_layer_is_refused() -> None:
    with pytest.raises(UserError, match="changed no linear layer"):
        list(ModelTailor().variants(trained("model.language_model.norm.weight")))


@pytest.mark.parametrize(
    ("field", "value"),
    [("density", 0.0), ("sensitivity", 1.5), ("calibration", 0), ("damping", 0.0), ("hessian_gb", 0.0)],
)
def test_settings_without_meaning_are_refused(field: str, value: float) -> None:
    assert list(ModelTailor(**{field: value}).problems()) == [field]
    assert not ModelTailor().problems()


def test_every_linear_layer_of_a_llava_is_tailored_closer_than_without_compensation(tmp_path: Path) -> None:
    models = tuned_llava(tmp_path / "llava", "vision", "projector", "language")
    weights = {}
    for compensation in (Compensation.obs, Compensation.none):
        ((_, weights[compensation]),) = ModelTailor(calibration=16, compensation=compensation).variants(models)
    layers = linear_layers(models.model, models.tuned)
    assert {name.split(".")[1] for name in layers} == {"vision_tower", "multi_modal_projector", "language_model"}
    # The head is tied to the embedding, whose rows are no layer's inputs.
    assert "model.language_model.embed_tokens.weight" in models.tuned.keys() - weights[Compensation.obs].keys()
    batches = list(first_items(models.passes, 16))
    for name, h in hessians(layers, models.passes, models.tuned, batches):
        obs, none = ((w[name] - models.tuned[name]).double() for w in weights.values())
        errors = [float(((d @ h.double()) * d).sum()) for d in (obs, none)]
        assert int((weights[Compensation.obs][name] != models.base[name]).sum()) <= round(0.1 * obs.numel())
        assert errors[0] < errors[1], name
