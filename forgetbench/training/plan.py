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
    """One target dataset, mixed with auxiliary data, for a number of steps."""

    target: str
    stream: MixedStream
    steps: int
    data_digest: str
    recipe: RecipeConfig | None = None
    """The recipe of the run with this stage's changes; None: the recipe of the run."""
    labels: Sequence[str] = ()
    """Labels of the target dataset; empty if its answers are open-ended."""
    items: Sequence[Sample] = ()
    """Items of the target dataset, without mixed-in or replayed items."""


def plan_stages(config: FinetuneConfig, catalogue: Catalogue, without: Container[Sample] = ()) -> list[Stage]:
    """Read the training data and plan every stage; with `data.training: none` stages have 0 steps.

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
        return [_drop_items(dataset, without) for dataset in _read_leaves(catalogue.leaves(name))]

    sets_by_stage = [items(name) for name in config.data.sets]
    recipes = [stage_recipe(config.recipe, stage) for stage in config.data.stages]
    steps = [
        stage.steps or _n_steps(stage.epochs, sets, recipe)
        for stage, sets, recipe in zip(config.data.stages, sets_by_stage, recipes, strict=True)
    ]
    if config.data.training is Training.joint:
        joined = [
            replace(part, weight=part.weight * n) for sets, n in zip(sets_by_stage, steps, strict=True) for part in sets
        ]
        sets_by_stage, recipes, steps = [_merge_duplicates(joined)], [config.recipe], [sum(steps)]
    elif config.data.training is Training.none:
        steps = [0] * len(steps)
    stages, digests = list[Stage](), DataDigests(Path(config.outputs) / ".cache" / "pictures")
    for number, (name, target, recipe, length) in enumerate(
        zip(config.data.targets, sets_by_stage, recipes, steps, strict=True)
    ):
        seed = config.seed * 1000 + number
        before = [
            part for names in (recipe.replay.earlier, config.data.sets[:number]) for part in _sets_named(items, names)
        ]
        target_sets = [*target, *replay_sets(before, target, recipe.replay.samples, seed)]
        auxiliary = _auxiliary_sets(items, recipe.mix)
        samples = [sample for dataset in target for sample in dataset.samples]
        stages.append(
            Stage(
                target=name,
                stream=MixedStream(target_sets, auxiliary, recipe.mix.ratio, seed),
                steps=length,
                data_digest=digests.digest([*target_sets, *auxiliary, *read]),
                recipe=recipe,
                labels=task_labels(samples),
                items=samples,
            )
        )
    return stages


def read_sets(method: Method, catalogue: Catalogue) -> dict[str, list[Sample]]:
    """Training items of the datasets that a method reads, by the method's name for them."""
    return {
        name: [sample for dataset in _read_leaves(catalogue.leaves(name)) for sample in dataset.samples]
        for name in method.reads()
    }


def replay_sets(
    earlier: Sequence[WeightedSet], target: Sequence[WeightedSet], count: int, seed: int
) -> list[WeightedSet]:
    """Random items of each earlier task, weighted as if they were appended to the target's items.

    Args:
        earlier: one dataset per task.
        target: the target data of the stage.
        count: items per task.
        seed: of the draw.
    """
    per_item = sum(dataset.weight for dataset in target) / sum(len(dataset.samples) for dataset in target)
    drawn_sets = []
    for number, dataset in enumerate(earlier if count else ()):
        drawn = np.random.default_rng([seed, 4, number]).permutation(len(dataset.samples))[:count]
        samples = [dataset.samples[place] for place in sorted(drawn)]
        drawn_sets.append(WeightedSet(f"{dataset.name} (replayed)", samples, per_item * len(samples)))
    return drawn_sets


def _n_steps(epochs: float | None, sets: Sequence[WeightedSet], recipe: RecipeConfig) -> int:
    if epochs is None:
        return recipe.steps
    return max(1, math.ceil(epochs * sum(len(dataset.samples) for dataset in sets) / recipe.batch_size))


def _sets_named(items: Callable[[str], list[WeightedSet]], names: Sequence[str]) -> list[WeightedSet]:
    return [dataset for name in names for dataset in items(name)]


def _auxiliary_sets(items: Callable[[str], list[WeightedSet]], mix: MixConfig) -> list[WeightedSet]:
    return [
        replace(dataset, weight=dataset.weight * weight)
        for name, weight in mix.weights.items()
        for dataset in items(name)
    ]


def _merge_duplicates(sets: Sequence[WeightedSet]) -> list[WeightedSet]:
    """Each dataset once; the weights of duplicates are added."""
    by_name: dict[str, WeightedSet] = {}
    for dataset in sets:
        weight = by_name[dataset.name].weight + dataset.weight if dataset.name in by_name else dataset.weight
        by_name[dataset.name] = replace(dataset, weight=weight)
    return list(by_name.values())


def _read_leaves(leaves: Sequence[Leaf]) -> list[WeightedSet]:
    return [WeightedSet(leaf.manifest.name, load_samples(leaf.manifest, leaf.split), leaf.weight) for leaf in leaves]


def _drop_items(dataset: WeightedSet, without: Container[Sample]) -> WeightedSet:
    samples = [sample for sample in dataset.samples if sample not in without] if without else dataset.samples
    if not samples:
        raise UserError(f"{dataset.name}: no item is short enough to train on; raise recipe.max_length.")
    return replace(dataset, samples=samples)


def check_pictures(config: FinetuneConfig, stages: Sequence[Stage]) -> None:
    """Refuse to train parts that only pictures reach if no item shows a picture.

    Raises:
        UserError: one stage without pictures trains only these parts, or every stage trains some of them without
            pictures.
    """
    unreached = {number: parts for number, stage in enumerate(stages) if (parts := _unreached_parts(config, stage))}
    for number, parts in unreached.items():
        recipe = stages[number].recipe or config.recipe
        if set(parts) == set(recipe.parts) or len(unreached) == len(stages):
            raise UserError(
                f"recipe.parts trains {' and '.join(parts)}, but no item of '{stages[number].target}', nor of what is "
                "mixed in or replayed, shows a picture: nothing there would be trained. Use recipe.parts=[language] "
                "(with recipe.lr for it alone), or mix in items with pictures (recipe.mix.data, recipe.mix.ratio)."
            )


def _unreached_parts(config: FinetuneConfig, stage: Stage) -> list[str]:
    """The parts that a stage trains although none of its items reaches them."""
    parts = [part for part in (stage.recipe or config.recipe).parts if part_word(part).part in SEEING_PARTS]
    if (
        not parts
        or not stage.steps
        or any(sample.images for dataset in stage.stream.drawn for sample in dataset.samples)
    ):
        return []
    return parts
