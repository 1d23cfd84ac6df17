"""Prepare a model for training: attach the method, choose the trainable parameters, count them."""

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
class PreparedModel:
    """The trainable parameters of a run."""

    audit: TrainableAudit
    """Counts over all stages, read from the model."""
    trainable_by_stage: Sequence[frozenset[str]]
    """Names of the parameters that each stage trains."""


def prepare(model: Any, recipes: Sequence[RecipeConfig], method: Method, seed: int) -> PreparedModel:
    """Attach the method and free the parameters that the stages' recipes name, without those that the method freezes.

    Parameters that train or that the method changes become fp32, whatever the precision of the loaded model. In a part
    that the method adapts, the base weights stay frozen and the added weights train.

    Args:
        model: on its base weights.
        recipes: one per stage.
        method: of the run.
        seed: of the adapters and of the random numbers of the method.

    Raises:
        UserError: nothing trains, or a part that a recipe names has no trainable parameter.
    """
    known = set(map(id, model.parameters()))
    torch.manual_seed(seed)
    method.attach(model, len(recipes))
    trainable = []
    for recipe in recipes:
        trainable.append(_choose_trainable(model, recipe, method, seed, known))
        trains = {
            word_of(name, recipe.parts) for name, parameter in model.named_parameters() if parameter.requires_grad
        }
        if without_gradient := set(recipe.parts) - trains:
            raise UserError(
                f"recipe.parts={list(recipe.parts)}: nothing trains in {', '.join(sorted(without_gradient))}."
            )
    trainable_in_any = frozenset().union(*trainable)
    moved = trainable_in_any | set(method.changed(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable_in_any)
        if name in moved:  # bf16 would lose the small steps of training
            widen([parameter])
    if any(recipe.gradient_checkpointing for recipe in recipes):
        # Non-reentrant checkpointing needs no gradient at a layer's input: undo the hook on the embeddings.
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()
    return PreparedModel(audit(model, [word for recipe in recipes for word in recipe.parts]), trainable)


def _choose_trainable(model: Any, recipe: RecipeConfig, method: Method, seed: int, known: set[int]) -> frozenset[str]:
    """Free exactly the parameters that one stage trains; returns their names."""
    choose_trainable(model, recipe.parts, recipe.language_last_layers)
    for name, parameter in model.named_parameters():
        if id(parameter) in known and word_of(name, method.adapted_parts()):
            parameter.requires_grad_(False)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    kept = set(method.frozen(model, trainable, seed))
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.requires_grad_(False)
    return frozenset(trainable) - kept
