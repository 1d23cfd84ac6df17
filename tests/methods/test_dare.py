"""DARE: the change in expectation, entry by entry, drawn from seed and name alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from forgetbench.methods.dare import Dare
from forgetbench.methods.operation import Trained


def trained(seed: int = 0, names: tuple[str, ...] = ("a", "b")) -> Trained:
    generator = torch.Generator().manual_seed(5)
    base = {name: torch.randn(50, 40, generator=generator) for name in ("a", "b")}
    tuned = {name: w + 0.01 * torch.randn(w.shape, generator=generator) for name, w in base.items()}
    passes: Any = SimpleNamespace(seed=seed)
    return Trained(None, {n: base[n] for n in names}, {n: tuned[n] for n in names}, (), {}, passes)


def dropped(models: Trained, rate: float) -> dict[str, Tensor]:
    ((_, tensors),) = Dare(rates=[rate]).variants(models)
    return dict(tensors)


def test_an_entry_is_at_the_base_or_has_its_change_scaled_up() -> None:
    models, values = trained(), dropped(trained(), 0.75)["a"]
    base, tuned = models.base["a"], models.tuned["a"]
    at_base = values == base
    scaled = base.double().numpy() + 4 * (tuned.double().numpy() - base.double().numpy())
    np.testing.assert_allclose(values[~at_base].numpy(), scaled[~at_base.numpy()], atol=1e-6)
    # 2,000 draws: within four standard deviations of the rate.
    assert abs(at_base.double().mean() - 0.75) < 4 * (0.75 * 0.25 / at_base.numel()) ** 0.5


def test_over_seeds_the_mean_is_the_tuned_weight() -> None:
    models, seeds, rate = trained(), 400, 0.6
    d = (models.tuned["a"] - models.base["a"]).double()
    mean = torch.stack([dropped(trained(seed), rate)["a"].double() for seed in range(seeds)]).mean(0)
    # The variance of one draw is d^2 p / (1 - p); z is standard normal in every entry.
    z = (mean - models.tuned["a"]) / (d.abs() * (rate / (1 - rate) / seeds) ** 0.5)
    assert z.abs().max() < 5.5
    assert z.mean().abs() < 4 / z.numel() ** 0.5
    assert 0.9 < z.std() < 1.1  # were the draws of different seeds alike, it would be far above


def test_a_tensor_is_drawn_alike_whatever_else_was_trained() -> None:
    single, both = dropped(trained(names=("b",)), 0.5), dropped(trained(), 0.5)
    assert torch.equal(single["b"], both["b"])
    kept = [both[name] != trained().base[name] for name in ("a", "b")]
    assert 0.4 < (kept[0] == kept[1]).double().mean() < 0.6  # tensors of one shape are drawn apart


def test_a_higher_rate_keeps_some_of_what_a_lower_rate_keeps() -> None:
    method, base = Dare(rates=[0.5, 0.9]), trained().base["a"]
    variants = dict(method.variants(trained()))
    assert list(variants) == method.settings() == ["0.5", "0.9"]
    low, high = (variants[str(rate)]["a"] != base for rate in method.rates)
    assert (low | ~high).all()
    assert high.sum() < low.sum()


@pytest.mark.parametrize("rates", [[], [0.0], [1.0], [0.5, 0.5], [float("nan")]])
def test_rates_that_drop_all_or_nothing_are_refused(rates: list[float]) -> None:
    assert "rates" in Dare(rates=rates).problems()
    assert not Dare().problems()
