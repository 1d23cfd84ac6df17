"""Checks of the items before the first step: which are too long, and which replies are trained without an end.

No item is cut: a cut inside a picture's tokens breaks the picture, one inside a reply teaches the model to stop there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from forgetbench.config import FinetuneConfig, RecipeConfig, TooLong, TrainOn
from forgetbench.core.errors import UserError
from forgetbench.core.records import Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.collate import Encoder
from forgetbench.data.mix import WeightedSet
from forgetbench.models.context import context_of
from forgetbench.terminal.console import say
from forgetbench.terminal.progress import tracked
from forgetbench.training.plan import Stage, plan_stages

_MAX_NAMED = 5
_BAR_FROM = 2000
"""A terminal shows a progress bar from this number of items on."""


@dataclass(frozen=True)
class LongItem:
    """An item that is too long."""

    set_name: str
    sample: Sample
    length: int
    """In tokens, pictures included."""


def longest_allowed(model_config: Any, recipe: RecipeConfig) -> int | None:
    """Length limit of training items in tokens: the model's context or recipe.max_length; None for no limit."""
    limits = (context_of(model_config).length, recipe.max_length)
    return min((limit for limit in limits if limit is not None), default=None)


def drop_long_items(
    config: FinetuneConfig, catalogue: Catalogue, stages: Sequence[Stage], encoder: Encoder, model_config: Any
) -> list[Stage]:
    """The stages without items that are too long, if the recipe allows to leave them out.

    Args:
        config: of the run.
        catalogue: of the datasets.
        stages: planned with all items.
        encoder: of the model.
        model_config: of the model.

    Raises:
        UserError: an item is too long and `recipe.too_long` is not `skip`, or an item has no picture and the model
            needs one; names the items.
    """
    if encoder.needs_pictures:
        _refuse_items_without_pictures(stages)
    long_items: dict[Sample, LongItem] = {}
    for stage in stages:
        recipe = stage.recipe or config.recipe
        limit = longest_allowed(model_config, recipe)
        long = [] if limit is None else _long_items(stage.stream.sets, encoder, recipe, limit)
        if long and recipe.too_long is TooLong.refuse:
            raise UserError(
                f"{_describe(long, limit)}\nLeave them out with recipe.too_long=skip, shrink pictures with "
                "model.max_pixels, or train a model with a longer context."
            )
        if long:
            say(f"Left out (recipe.too_long=skip): {_describe(long, limit)}")
        long_items |= {item.sample: item for item in long}
    if not long_items:
        return list(stages)
    fitting = plan_stages(config, catalogue, without=long_items.keys())
    # The data digest is over all items of the files; which of them fit follows from the model.
    return [
        replace(fitting_stage, data_digest=stage.data_digest)
        for fitting_stage, stage in zip(fitting, stages, strict=True)
    ]


def untrained_ends_warning(stages: Sequence[Stage], encoder: Encoder, recipe: RecipeConfig) -> str:
    """A warning if earlier replies are trained, but not the end after them; else empty."""
    if encoder.template.reply_form.is_written:
        return ""
    trained = [stage for stage in stages if (stage.recipe or recipe).train_on is TrainOn.all]
    samples = (sample for stage in trained for dataset in stage.stream.sets for sample in dataset.samples)
    if all(sample.is_question for sample in samples):
        return ""
    return (
        "The chat template writes no end after a reply: of conversations, only the last reply is trained to end. Give "
        "model.chat_template one that does (docs/models.md), or train on last replies (recipe.train_on=last)."
    )


def _refuse_items_without_pictures(stages: Sequence[Stage]) -> None:
    without_picture = {
        f"'{sample.id}' of {dataset.name}"
        for stage in stages
        for dataset in stage.stream.drawn
        for sample in dataset.samples
        if not sample.images
    }
    if without_picture:
        named, more = (
            ", ".join(sorted(without_picture)[:_MAX_NAMED]),
            f" and {len(without_picture) - _MAX_NAMED} more" if len(without_picture) > _MAX_NAMED else "",
        )
        raise UserError(
            f"This kind of model needs a picture in every item, and there is none in {named}{more}; leave them out."
        )


def _long_items(sets: Sequence[WeightedSet], encoder: Encoder, recipe: RecipeConfig, limit: int) -> list[LongItem]:
    long_items: dict[Sample, LongItem] = {}
    for dataset in sets:
        for sample in tracked(dataset.samples, f"measuring {dataset.name}", "items", _BAR_FROM):
            # Most items are short by an upper bound; only the others are encoded.
            if sample in long_items or encoder.length_bound(sample) <= limit:
                continue
            length = encoder.example(sample, recipe.train_on, recipe.train_after_end).length
            if length > limit:
                long_items[sample] = LongItem(dataset.name, sample, length)
    return list(long_items.values())


def _describe(long: Sequence[LongItem], limit: int | None) -> str:
    """How many items are too long, and which."""
    ordered = sorted(long, key=lambda item: -item.length)
    named = ", ".join(f"'{item.sample.id}' of {item.set_name} ({item.length})" for item in ordered[:_MAX_NAMED])
    more = f" and {len(long) - _MAX_NAMED} more" if len(long) > _MAX_NAMED else ""
    items = "1 item is" if len(long) == 1 else f"{len(long)} items are"
    return f"{items} longer than {limit} tokens, the model's context or recipe.max_length: {named}{more}."
