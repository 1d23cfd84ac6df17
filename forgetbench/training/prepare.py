"""Make a model ready to train: attach the method, choose what is free, count it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from forgetbench.config import RecipeConfig
from forgetbench.core.errors import UserError
from forgetbench.methods.base import Method
from forgetbench.models.parts import TrainableAudit, audit, choose_trainable, word_of
from forgetbench.models.precision import widen


@dataclass(frozen=True)
class Prepared:
    """What trains."""

    audit: TrainableAudit
    """Over all stages, read from the model."""
    free: Sequence[frozenset[str]]
    """Names of what each stage trains."""


def prepare(model: Any, recipes: Sequence[RecipeConfig], method: Method, seed: int) -> Prepared:
    """Attach the method and free exactly what the recipes of the stages name, less what the method keeps frozen.

    What trains, or is changed by the method, is held in fp32 from here on, however wide the model was loaded. A part
    that the method adapts keeps its own weights frozen and trains the added ones.

    Args:
        model: on its base weights.
        recipes: one per stage.
        method: of the run.
        seed: of the adapters, and of what the method draws.

    Raises:
        UserError: nothing trains, or a part that a recipe names does not.
    """
    known = set(map(id, model.parameters()))
    torch.manual_seed(seed)
    method.attach(model, len(recipes))
    free = []
    for recipe in recipes:
        free.append(_free(model, recipe, method, seed, known))
        trains = {word_of(name, recipe.parts) for name, one in model.named_parameters() if one.requires_grad}
        if without_gradient := set(recipe.parts) - trains:
            raise UserError(
                f"recipe.parts={list(recipe.parts)}: nothing trains in {', '.join(sorted(without_gradient))}."
            )
    free_in_any = frozenset().union(*free)
    moved = free_in_any | set(method.changed(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in free_in_any)
        if name in moved:  # steps of training are too small for bf16
            widen([parameter])
    if any(recipe.gradient_checkpointing for recipe in recipes):
        # The kind that needs no gradient at a layer's input, so what is asked of the embeddings for it is undone.
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()
    return Prepared(audit(model, [word for recipe in recipes for word in recipe.parts]), free)


def _free(model: Any, recipe: RecipeConfig, method: Method, seed: int, known: set[int]) -> frozenset[str]:
    """Free what one stage trains, and nothing else; its names."""
    choose_trainable(model, recipe.parts, recipe.language_last_layers)
    for name, parameter in model.named_parameters():
        if id(parameter) in known and word_of(name, method.adapted_parts()):
            parameter.requires_grad_(False)
    free = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    kept = set(method.frozen(model, free, seed))
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.requires_grad_(False)
    return frozenset(free) - kept
