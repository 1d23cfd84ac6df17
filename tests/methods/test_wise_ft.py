"""WiSE-FT: a straight line between two models, exact at both ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from forgetbench.methods.operation import Trained
from forgetbench.methods.wise_ft import WiseFT


def trained() -> Trained:
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=generator) for name, shape in {"a": (40, 30), "b": (7,)}.items()}
    tuned = {name: w + 0.3 * torch.randn(w.shape, generator=generator) for name, w in base.items()}
    tuned["a"][:5] = base["a"][:5]
    passes: Any = None
    return Trained(None, base, tuned, (), {}, passes)


def test_the_ends_are_the_two_models_bit_for_bit() -> None:
    models = trained()
    variants = dict(WiseFT(alphas=[0.0, 1.0]).variants(models))
    for name in ("a", "b"):
        assert variants["0.0"][name].numpy().tobytes() == models.tuned[name].numpy().tobytes()
        assert variants["1.0"][name].numpy().tobytes() == models.base[name].numpy().tobytes()


def test_alpha_is_the_share_of_the_base() -> None:
    models, method = trained(), WiseFT(alphas=[0.25, 0.7])
    variants = dict(method.variants(models))
    assert list(variants) == method.settings() == ["0.25", "0.7"]
    for alpha in method.alphas:
        for name, w in variants[str(alpha)].items():
            base, tuned = (weights[name].double().numpy() for weights in (models.base, models.tuned))
            np.testing.assert_allclose(w.numpy(), alpha * base + (1 - alpha) * tuned, atol=1e-6)


def test_what_training_left_alone_stays_as_it_was_at_every_alpha() -> None:
    models = trained()
    for _, tensors in WiseFT(alphas=[0.1, 0.3, 0.7]).variants(models):
        assert torch.equal(tensors["a"][:5], models.base["a"][:5])


@pytest.mark.parametrize("alphas", [[], [1.1], [-0.1, 0.5], [0.5, 0.5], [float("nan")]])
def test_alphas_that_name_no_variant_of_their_own_are_refused(alphas: list[float]) -> None:
    assert "alphas" in WiseFT(alphas=alphas).problems()
    assert not WiseFT().problems()
