"""What is wrong with a recipe on its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from forgetbench.compose.checks.problem import Problem, at_least_1, duplicates
from forgetbench.config import FinetuneConfig, MixConfig, RecipeConfig, SweepConfig
from forgetbench.core.override_text import as_text
from forgetbench.core.part_words import part_word, word_problems
from forgetbench.core.records import PARTS
from forgetbench.methods.base import Method


def recipe_problems(recipe: RecipeConfig) -> Iterator[Problem]:
    """What is wrong with a recipe on its own."""
    yield from _parts(recipe)
    yield from _learning_rates(recipe)
    yield from _mix(recipe)
    for key in ("steps", "batch_size", "gradient_accumulation"):
        yield from at_least_1(f"recipe.{key}", getattr(recipe, key))
    if recipe.gradient_accumulation > 0 and recipe.batch_size % recipe.gradient_accumulation:
        yield Problem(
            "recipe.gradient_accumulation",
            f"batch_size {recipe.batch_size} does not split into {recipe.gradient_accumulation} equal micro-batches.",
        )
    if not 0 <= recipe.warmup <= 1:
        yield Problem(
            "recipe.warmup",
            f"{recipe.warmup} is not a share of the steps; give a number from 0 to 1.",
        )
    if not 0 <= recipe.weight_decay < math.inf:
        yield Problem("recipe.weight_decay", f"{recipe.weight_decay} is no weight decay; give a number from 0.")
    if recipe.max_grad_norm <= 0:
        yield Problem(
            "recipe.max_grad_norm",
            f"{recipe.max_grad_norm} would stop every step; give a number above 0.",
        )


def mix_problems(config: FinetuneConfig) -> Iterator[Problem]:
    """Auxiliary sets that nothing is drawn from; a sweep may have such a point, for comparison."""
    if not isinstance(config, SweepConfig):
        yield from unused_mix([config])


def unused_mix(configs: Sequence[FinetuneConfig]) -> Iterator[Problem]:
    """Auxiliary sets that nothing is drawn from at any point of a sweep, or in one run."""
    mixing = [config.recipe.mix for config in configs if config.recipe.mix.data]
    stages = [stage for config in configs for stage in config.data.stages if "mix" in stage.recipe]
    if not mixing or stages or any(mix.ratio for mix in mixing):
        return
    sets = ", ".join(dict.fromkeys(name for mix in mixing for name in named_sets(mix)))
    yield Problem(
        "recipe.mix.ratio",
        f"0, so nothing of recipe.mix.data ({sets}) is trained on; give the share of the instances, such as 0.3, "
        "or leave recipe.mix.data empty.",
    )


def named_sets(mix: MixConfig) -> list[str]:
    """Names of the auxiliary sets, whether or not the rest of them makes sense."""
    named = (entry.get("set") if isinstance(entry, dict) else entry for entry in mix.data)
    return [name for name in named if isinstance(name, str)]


def _parts(recipe: RecipeConfig) -> Iterator[Problem]:
    if not recipe.parts:
        yield Problem("recipe.parts", f"empty, so nothing is trainable; give some of [{', '.join(PARTS)}].")
    yield from duplicates("recipe.parts", recipe.parts)
    yield from (Problem("recipe.parts", message) for message in word_problems(recipe.parts))
    if recipe.language_last_layers is not None:
        yield from at_least_1("recipe.language_last_layers", recipe.language_last_layers)
        if "language" not in recipe.parts:
            yield Problem(
                "recipe.language_last_layers",
                "restricts `language`, which recipe.parts does not train; of a module, name the layers, as in "
                "language.layers_12_to_23.attention.",
            )


def unadapted(method: Method, parts: Sequence[str], key: str) -> Iterator[str]:
    """Words of a method's parts that the trained parts lack or spell differently.

    Args:
        method: of the run.
        parts: that train, well-formed or not.
        key: what they are called.
    """
    if any(word_problems(parts)) or any(word_problems(method.adapted_parts())):
        return  # reported on its own
    for word in method.adapted_parts():
        alike = [part for part in parts if part_word(part).overlaps(part_word(word))]
        if word in parts:
            continue
        if alike:
            narrow = word if part_word(alike[0]).contains(part_word(word)) else alike[0]
            yield (
                f"{method.name} on '{word}', but {key} {list(parts)} say '{alike[0]}'. Write the same word in both, "
                f"such as recipe.parts=[{narrow}] method.parts=[{narrow}]; what is to train in full beside it needs "
                "words of its own."
            )
        else:
            yield f"{method.name} on '{word}', which {key} {list(parts)} leaves frozen; change one of the two."


def _learning_rates(recipe: RecipeConfig) -> Iterator[Problem]:
    rates = recipe.lr if isinstance(recipe.lr, dict) else dict.fromkeys(recipe.parts, recipe.lr)
    for part in recipe.parts:
        if part not in rates:
            yield Problem("recipe.lr", f"no rate for the trained part '{part}'; add {part}: <rate>.")
    for part in rates:
        if part not in recipe.parts:
            yield Problem(
                "recipe.lr",
                f"a rate for '{part}', which recipe.parts does not train; drop one or add the other.",
            )
    for rate in {repr(rate): rate for rate in rates.values()}.values() if isinstance(recipe.lr, dict) else (recipe.lr,):
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < float("inf"):
            given = repr(rate) if isinstance(rate, str) else as_text(rate)
            per_part = " or {language: 1e-5, projector: 1e-4}" if isinstance(rate, list) else ""
            yield Problem(
                "recipe.lr",
                f"{given} is not a learning rate; give a number above 0, such as 1e-5{per_part}.",
            )


def _mix(recipe: RecipeConfig) -> Iterator[Problem]:
    ratio = recipe.mix.ratio
    if recipe.replay.samples < 0:
        yield Problem("recipe.replay.samples", f"{recipe.replay.samples} is negative; give 0 or more.")
    yield from duplicates("recipe.replay.earlier", recipe.replay.earlier)
    for entry in recipe.mix.data:
        yield from _mixed_set(entry)
    yield from duplicates("recipe.mix.data", named_sets(recipe.mix))
    if not 0 <= ratio <= 1:
        yield Problem(
            "recipe.mix.ratio",
            f"{ratio} is not a share of the instances; give a number from 0 to 1.",
        )
    elif ratio > 0 and not recipe.mix.data:
        yield Problem(
            "recipe.mix.data",
            f"empty, but recipe.mix.ratio is {ratio}; name auxiliary sets or set the ratio to 0.",
        )


def _mixed_set(entry: object) -> Iterator[Problem]:
    """What is wrong with one of the auxiliary sets: a name, or a name with a weight."""
    key = "recipe.mix.data"
    if isinstance(entry, str):
        return
    if not isinstance(entry, dict) or not isinstance(entry.get("set"), str) or set(entry) - {"set", "weight"}:
        yield Problem(key, f"{as_text(entry)} is no set; write its name, or {{set: <name>, weight: 2}}.")
        return
    weight = entry.get("weight")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        yield Problem(
            key,
            f"the weight of '{entry['set']}' is {as_text(weight)}; give a number above 0, or leave the set out.",
        )
