"""From a configuration to the stages of a run: which items, in which order, for how many steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from forgetbench.config import FinetuneConfig, MixConfig, RecipeConfig, Training, stage_recipe
from forgetbench.core.errors import UserError
from forgetbench.core.part_words import part_word
from forgetbench.core.records import SEEING_PARTS, Sample
from forgetbench.data.catalogue import Catalogue, Leaf
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.data.sources import load_samples, task_labels
from forgetbench.methods.base import Method
from forgetbench.training.data_digest import DataDigests


@dataclass(frozen=True)
class Stage:
    """One target set, mixed with auxiliary data, for a number of steps."""

    target: str
    stream: MixedStream
    steps: int
    data_digest: str
    recipe: RecipeConfig | None = None
    """The run's, with what this stage changes; None for the run's as it is."""
    labels: Sequence[str] = ()
    """The labels that the target set teaches; none if its answers are open-ended."""
    items: Sequence[Sample] = ()
    """Of the target set, without those that are mixed in or replayed."""


def plan_stages(config: FinetuneConfig, catalogue: Catalogue, without: Container[Sample] = ()) -> list[Stage]:
    """Read the training data and lay out every stage; `data.training: none` has stages of no steps.

    Args:
        config: of the run.
        catalogue: of the datasets.
        without: items to leave out.

    Raises:
        UserError: a manifest or its files do not fit.
    """
    read = [WeightedSet(name, samples, 1.0) for name, samples in read_sets(config.method, catalogue).items()]

    @cache
    def items(name: str) -> list[WeightedSet]:
        return [_less(one, without) for one in _weighted(catalogue.leaves(name))]

    own = [items(name) for name in config.data.sets]
    recipes = [stage_recipe(config.recipe, stage) for stage in config.data.stages]
    steps = [
        stage.steps or _whole_steps(stage.epochs, one, recipe)
        for stage, one, recipe in zip(config.data.stages, own, recipes, strict=True)
    ]
    if config.data.training is Training.joint:
        joined = [replace(part, weight=part.weight * n) for one, n in zip(own, steps, strict=True) for part in one]
        own, recipes, steps = [_merged(joined)], [config.recipe], [sum(steps)]
    elif config.data.training is Training.none:
        steps = [0] * len(steps)
    stages, digests = list[Stage](), DataDigests(Path(config.outputs) / ".cache" / "pictures")
    for number, (name, target, recipe, length) in enumerate(zip(config.data.targets, own, recipes, steps, strict=True)):
        seed = config.seed * 1000 + number
        before = [part for names in (recipe.replay.earlier, config.data.sets[:number]) for part in _all(items, names)]
        target_sets = [*target, *replayed(before, target, recipe.replay.samples, seed)]
        auxiliary = _mixed(items, recipe.mix)
        samples = [sample for one in target for sample in one.samples]
        stages.append(
            Stage(
                target=name,
                stream=MixedStream(target_sets, auxiliary, recipe.mix.ratio, seed),
                steps=length,
                data_digest=digests.of([*target_sets, *auxiliary, *read]),
                recipe=recipe,
                labels=task_labels(samples),
                items=samples,
            )
        )
    return stages


def read_sets(method: Method, catalogue: Catalogue) -> dict[str, list[Sample]]:
    """Training items of the sets that a method reads, by the name it gives."""
    return {
        name: [sample for one in _weighted(catalogue.leaves(name)) for sample in one.samples] for name in method.reads()
    }


def replayed(earlier: Sequence[WeightedSet], target: Sequence[WeightedSet], count: int, seed: int) -> list[WeightedSet]:
    """Random items of each earlier task, drawn as often as if they were appended to the target's items.

    Args:
        earlier: a set per task.
        target: the stage's own data.
        count: items per task.
        seed: of the draw.
    """
    per_item = sum(one.weight for one in target) / sum(len(one.samples) for one in target)
    found = []
    for number, one in enumerate(earlier if count else ()):
        drawn = np.random.default_rng([seed, 4, number]).permutation(len(one.samples))[:count]
        samples = [one.samples[place] for place in sorted(drawn)]
        found.append(WeightedSet(f"{one.name} (replayed)", samples, per_item * len(samples)))
    return found


def _whole_steps(epochs: float | None, own: Sequence[WeightedSet], recipe: RecipeConfig) -> int:
    if epochs is None:
        return recipe.steps
    return max(1, math.ceil(epochs * sum(len(one.samples) for one in own) / recipe.batch_size))


def _all(items: Callable[[str], list[WeightedSet]], names: Sequence[str]) -> list[WeightedSet]:
    return [one for name in names for one in items(name)]


def _mixed(items: Callable[[str], list[WeightedSet]], mix: MixConfig) -> list[WeightedSet]:
    return [replace(one, weight=one.weight * weight) for name, weight in mix.weights.items() for one in items(name)]


def _merged(sets: Sequence[WeightedSet]) -> list[WeightedSet]:
    """A set that several tasks share once, with their weights added."""
    found: dict[str, WeightedSet] = {}
    for one in sets:
        weight = found[one.name].weight + one.weight if one.name in found else one.weight
        found[one.name] = replace(one, weight=weight)
    return list(found.values())


def _weighted(leaves: Sequence[Leaf]) -> list[WeightedSet]:
    return [WeightedSet(leaf.manifest.name, load_samples(leaf.manifest, leaf.split), leaf.weight) for leaf in leaves]


def _less(one: WeightedSet, without: Container[Sample]) -> WeightedSet:
    samples = [sample for sample in one.samples if sample not in without] if without else one.samples
    if not samples:
        raise UserError(f"{one.name}: no item is short enough to train on; raise recipe.max_length.")
    return replace(one, samples=samples)


def check_pictures(config: FinetuneConfig, stages: Sequence[Stage]) -> None:
    """Refuse parts that only pictures train where no item shows one.

    Raises:
        UserError: a stage trains such parts alone without a picture, or all stages train some without one.
    """
    blind = {number: parts for number, stage in enumerate(stages) if (parts := _blind_parts(config, stage))}
    for number, parts in blind.items():
        recipe = stages[number].recipe or config.recipe
        if set(parts) == set(recipe.parts) or len(blind) == len(stages):
            raise UserError(
                f"recipe.parts trains {' and '.join(parts)}, but no item of '{stages[number].target}', nor of what is "
                "mixed in or replayed, shows a picture: nothing there would be trained. Use recipe.parts=[language] "
                "(with recipe.lr for it alone), or mix in items with pictures (recipe.mix.data, recipe.mix.ratio)."
            )


def _blind_parts(config: FinetuneConfig, stage: Stage) -> list[str]:
    """The parts that a stage would train and that its items do not reach."""
    parts = [part for part in (stage.recipe or config.recipe).parts if part_word(part).part in SEEING_PARTS]
    if not parts or not stage.steps or any(sample.images for one in stage.stream.drawn for sample in one.samples):
        return []
    return parts
