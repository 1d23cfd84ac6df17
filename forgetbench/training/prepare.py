"""Make a model ready to train: attach the method, choose what is free, count it."""

from __future__ import annotations

from typing import Any

import torch

from forgetbench.config import RecipeConfig
from forgetbench.errors import UserError
from forgetbench.methods.base import Method
from forgetbench.models.parts import TrainableAudit, audit, choose_trainable, part_of


def prepare(model: Any, recipe: RecipeConfig, method: Method, seed: int, stages: int = 1) -> TrainableAudit:
    """Attach the method and free exactly what the recipe names, less what the method keeps frozen.

    A part that the method adapts keeps its own weights frozen and trains the added ones.

    Returns:
        What trains now, read from the model.

    Raises:
        UserError: nothing trains, or a part that the recipe names does not.
    """
    known = set(map(id, model.parameters()))
    torch.manual_seed(seed)
    method.attach(model, stages)
    adapted = set(method.adapted_parts())
    choose_trainable(model, recipe.parts, recipe.language_last_layers)
    for name, parameter in model.named_parameters():
        if id(parameter) in known and part_of(name) in adapted:
            parameter.requires_grad_(False)
    free = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    kept = set(method.frozen(model, free, seed))
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.requires_grad_(False)
    result = audit(model)
    silent = set(recipe.parts) - set(result.label.split("+"))
    if silent:
        raise UserError(f"recipe.parts={list(recipe.parts)}: nothing trains in {', '.join(sorted(silent))}.")
    return result
