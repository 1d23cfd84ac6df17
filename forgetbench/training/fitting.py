"""What to know of the items before the first step: which are too long, and what a template leaves untrained.

Nothing is cut: a cut inside a picture's tokens breaks the picture, one inside a reply teaches to stop there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.markup import escape
from rich.progress import track

from forgetbench.config import FinetuneConfig, RecipeConfig, TooLong, TrainOn
from forgetbench.core.errors import UserError
from forgetbench.core.records import Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.collate import Encoder
from forgetbench.data.mix import WeightedSet
from forgetbench.models.context import context_of
from forgetbench.terminal.console import console, say
from forgetbench.training.plan import Stage, plan_stages

_NAMED = 5
_SHOWN_FROM = 2000
"""Items from which on a bar is shown."""


@dataclass(frozen=True)
class LongItem:
    """An item that does not fit."""

    set_name: str
    sample: Sample
    length: int
    """Tokens, pictures included."""


def longest_allowed(model_config: Any, recipe: RecipeConfig) -> int | None:
    """Tokens of the longest item that a recipe may train on; None where nothing limits them."""
    limits = (context_of(model_config).length, recipe.max_length)
    return min((limit for limit in limits if limit is not None), default=None)


def fitting_stages(
    config: FinetuneConfig, catalogue: Catalogue, stages: Sequence[Stage], encoder: Encoder, model_config: Any
) -> list[Stage]:
    """The stages without what is too long, where the recipe says so.

    Args:
        config: of the run.
        catalogue: of the datasets.
        stages: as they were planned with all items.
        encoder: of the model.
        model_config: of the model.

    Raises:
        UserError: an item is too long and `recipe.too_long` does not leave it out, or it shows no picture and the
            model needs one; names the items.
    """
    if encoder.needs_pictures:
        _refuse_texts(stages)
    found: dict[Sample, LongItem] = {}
    for stage in stages:
        recipe = stage.recipe or config.recipe
        limit = longest_allowed(model_config, recipe)
        long = [] if limit is None else _long_items(stage.stream.sets, encoder, recipe, limit)
        if long and recipe.too_long is TooLong.refuse:
            raise UserError(
                f"{_told(long, limit)}\nLeave them out with recipe.too_long=skip, shrink pictures with "
                "model.max_pixels, or train a model with a longer context."
            )
        if long:
            say(f"Left out (recipe.too_long=skip): {_told(long, limit)}")
        found |= {one.sample: one for one in long}
    if not found:
        return list(stages)
    fitting = plan_stages(config, catalogue, without=found.keys())
    # What a run was trained on is told apart by its files' items; which of them fit follows from the model.
    return [replace(one, data_digest=stage.data_digest) for one, stage in zip(fitting, stages, strict=True)]


def untrained_ends(stages: Sequence[Stage], encoder: Encoder, recipe: RecipeConfig) -> str:
    """What to tell where earlier replies are trained, but no end after them; empty where all is well."""
    if encoder.template.reply_form.is_written:
        return ""
    trained = [stage for stage in stages if (stage.recipe or recipe).train_on is TrainOn.all]
    samples = (sample for stage in trained for one in stage.stream.sets for sample in one.samples)
    if all(sample.is_question for sample in samples):
        return ""
    return (
        "The chat template writes no end after a reply: of conversations, only the last reply is trained to end. Give "
        "model.chat_template one that does (docs/models.md), or train on last replies (recipe.train_on=last)."
    )


def _refuse_texts(stages: Sequence[Stage]) -> None:
    found = {
        f"'{sample.id}' of {one.name}"
        for stage in stages
        for one in stage.stream.drawn
        for sample in one.samples
        if not sample.images
    }
    if found:
        named, more = (
            ", ".join(sorted(found)[:_NAMED]),
            f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "",
        )
        raise UserError(
            f"This kind of model needs a picture in every item, and there is none in {named}{more}; leave them out."
        )


def _long_items(sets: Sequence[WeightedSet], encoder: Encoder, recipe: RecipeConfig, limit: int) -> list[LongItem]:
    found: dict[Sample, LongItem] = {}
    for one in sets:
        for sample in _with_bar(one):
            # Most items are short by any measure; only the others are encoded.
            if sample in found or encoder.length_bound(sample) <= limit:
                continue
            length = encoder.example(sample, recipe.train_on, recipe.train_after_end).length
            if length > limit:
                found[sample] = LongItem(one.name, sample, length)
    return list(found.values())


def _with_bar(one: WeightedSet) -> Iterable[Sample]:
    hidden = len(one.samples) < _SHOWN_FROM or not console.is_terminal or console.quiet
    title, total = f"measuring {escape(one.name)}", len(one.samples)
    return track(one.samples, title, console=console, transient=True, disable=hidden, total=total)


def _told(long: Sequence[LongItem], limit: int | None) -> str:
    """How many, and which."""
    ordered = sorted(long, key=lambda one: -one.length)
    named = ", ".join(f"'{one.sample.id}' of {one.set_name} ({one.length})" for one in ordered[:_NAMED])
    more = f" and {len(long) - _NAMED} more" if len(long) > _NAMED else ""
    items = "1 item is" if len(long) == 1 else f"{len(long)} items are"
    return f"{items} longer than {limit} tokens, the model's context or recipe.max_length: {named}{more}."
