"""What a run is trained on, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from omegaconf import MISSING, OmegaConf

from forgetbench.config.recipe import RecipeConfig
from forgetbench.core.references import literal


class Training(StrEnum):
    """How the stages of a run are trained."""

    sequence = "sequence"
    """One after the other."""
    joint = "joint"
    """All at once, each as often as in the sequence: multi-task training, the upper bound of continual learning."""
    none = "none"
    """Not at all: zero-shot, the lower bound."""


@dataclass
class StageConfig:
    """One stage of fine-tuning: a target set, and what is not as the recipe has it."""

    set: str = MISSING
    """Name of a manifest."""
    steps: int | None = None
    """Optimiser steps of this stage; null: as many as the recipe has."""
    epochs: float | None = None
    """Instead of steps: how often the target set's items are seen, rounded up to whole steps; mixed-in and replayed
    items take the place of some."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """Keys of the recipe that this stage changes, such as {lr: 1e-5, mix: {ratio: 0.3}}."""


@dataclass
class DataConfig:
    """What is trained on, in order; one stage is plain fine-tuning, several continual learning."""

    stages: list[StageConfig] = MISSING
    """Target sets in order: [{set: <name>, steps: <n>, recipe: {lr: 1e-5}}, ...] (docs/continual.md)."""
    training: Training = Training.sequence
    """Stages one after the other, all at once (joint), or not at all (zero-shot)."""
    carry_optimiser: bool = False
    """Go on with the optimiser's moments at the next stage, as in one long training; by default each stage starts with
    a fresh optimiser, as if it were a run of its own."""

    @property
    def sets(self) -> list[str]:
        """The target sets, in order."""
        return [stage.set for stage in self.stages]

    @property
    def tasks(self) -> list[str]:
        """What is learnt, by the dataset that it is scored on: the target sets without the names of splits."""
        return [name.partition(":")[0] for name in self.sets]

    @property
    def targets(self) -> list[str]:
        """What each stage is trained on; sets that are trained jointly are joined by `+`."""
        return ["+".join(dict.fromkeys(self.sets))] if self.training is Training.joint else self.sets


def stage_recipes(recipe: RecipeConfig, data: DataConfig) -> list[RecipeConfig]:
    """The recipe of every stage that is trained; joint training is one stage, of the recipe as it is.

    Raises:
        OmegaConfBaseException: as `stage_recipe`.
    """
    if data.training is Training.joint:
        return [recipe]
    return [stage_recipe(recipe, stage) for stage in data.stages]


def stage_recipe(recipe: RecipeConfig, stage: StageConfig) -> RecipeConfig:
    """The recipe of one stage, without the run's rates for parts that this stage does not train.

    Raises:
        OmegaConfBaseException: the stage changes a key that recipes do not have, or to a value of another type.
    """
    merged = OmegaConf.merge(OmegaConf.structured(RecipeConfig), literal(asdict(recipe)), literal(stage.recipe))
    changed = OmegaConf.to_object(merged)
    assert isinstance(changed, RecipeConfig)
    if "parts" in stage.recipe and isinstance(changed.lr, dict):
        rates = stage.recipe.get("lr")
        given_rates = rates if isinstance(rates, Mapping) else {}
        changed.lr = {word: rate for word, rate in changed.lr.items() if word in changed.parts or word in given_rates}
    return changed
