"""The optimiser of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from forgetbench.config import RecipeConfig
from forgetbench.models.parts import part_of


def adamw(
    optimised: Mapping[str, nn.Parameter], trainable: Mapping[str, nn.Parameter], recipe: RecipeConfig
) -> torch.optim.AdamW:
    """AdamW with a group per part; norms and biases (one axis) are not decayed.

    Args:
        optimised: what it steps, by live name.
        trainable: the model's own parameters of the same names.
        recipe: of the stage.
    """
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in optimised.items():
        part, decays = part_of(name), trainable[name].ndim > 1
        peak = float(recipe.lr[part] if isinstance(recipe.lr, Mapping) else recipe.lr)
        decay = recipe.weight_decay if decays else 0.0
        fresh = {"params": [], "part": part, "lr": peak, "peak_lr": peak, "weight_decay": decay}
        groups.setdefault((part, decays), fresh)["params"].append(parameter)
    return torch.optim.AdamW(list(groups.values()), foreach=False, fused=True)
