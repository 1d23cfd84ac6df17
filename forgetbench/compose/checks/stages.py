"""What is wrong with the stages of a run: what they change of the recipe, and how they are trained."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf.errors import OmegaConfBaseException

from forgetbench.compose.checks.problem import Problem
from forgetbench.compose.checks.recipe import recipe_problems, unadapted
from forgetbench.compose.config_errors import reworded
from forgetbench.config import FinetuneConfig, RecipeConfig, StageConfig, Training, stage_recipe

_WHOLE_RUN = {
    "checkpoints": "counts steps of the whole run",
    "precision": "is one for the whole run",
    "reuse_features": "is one for the whole run",
    "steps": "is given as the stage's own `steps` or `epochs`",
}
"""Keys of the recipe that a stage cannot change, and why."""


def stage_problems(config: FinetuneConfig) -> Iterator[Problem]:
    """What is wrong with each stage beside its data."""
    for index, stage in enumerate(config.data.stages):
        key = f"data.stages.{index}.recipe"
        for name in _WHOLE_RUN.keys() & stage.recipe.keys():
            yield Problem(key, f"recipe.{name} {_WHOLE_RUN[name]}; take it out of the stage.")
        if stage.recipe and config.data.training is Training.joint:
            yield Problem(key, "stages that are trained jointly have one recipe; set data.training=sequence.")
        try:
            recipe = stage_recipe(config.recipe, stage)
        except OmegaConfBaseException as error:
            yield _refused(key, error)
            continue
        if stage.recipe:
            yield from (
                Problem(f"{key}.{problem.key.removeprefix('recipe.')}", problem.message)
                for problem in recipe_problems(recipe)
            )
            yield from (
                Problem(key, message) for message in unadapted(config.method, recipe.parts, "this stage's parts")
            )
            yield from _unused_mix(f"{key}.mix.ratio", stage, recipe)


def _refused(key: str, error: OmegaConfBaseException) -> Problem:
    """A key that recipes do not have, or a value of another type."""
    within = error.full_key or ""
    full = f"{key}.{within}" if within else key
    return Problem(full, reworded((str(error).splitlines() or [""])[0], full))


def changed_recipes(config: FinetuneConfig) -> Iterator[tuple[int, RecipeConfig]]:
    """The recipes of stages that change something, with the stage's index; those that do not compose are left out."""
    for index, stage in enumerate(config.data.stages):
        if stage.recipe:
            try:
                yield index, stage_recipe(config.recipe, stage)
            except OmegaConfBaseException:
                continue


def _unused_mix(key: str, stage: StageConfig, recipe: RecipeConfig) -> Iterator[Problem]:
    mix = stage.recipe.get("mix")
    if isinstance(mix, dict) and mix.get("data") and not recipe.mix.ratio:
        yield Problem(key, "0, so nothing of this stage's mix.data is trained on; give the share, such as 0.3.")
