"""Short forms of overrides, written out before Hydra reads them, so that one meaning has one spelling.

data=[a,b]                     the sequence of a, then b, under the name `a+b`
data.stages=[a,b]              data.stages=[{set:a},{set:b}]
recipe.mix.data={a:2,b:1}      recipe.mix.data=[{set:a,weight:2.0},b]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override, ValueType
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from forgetbench.compose.config_errors import reworded
from forgetbench.compose.overrides import parse
from forgetbench.config import StageConfig
from forgetbench.config.recipe import canonical_sets
from forgetbench.core.errors import UserError
from forgetbench.core.options import config_files, nearest, options
from forgetbench.core.override_text import as_text


@dataclass(frozen=True)
class LongForms:
    """Overrides without short forms."""

    overrides: list[Override]
    sequences: Mapping[str, list[str]]
    """Options of the group `data` that the command line made: name -> sets, in order."""


def long_forms(parsed: Sequence[Override], manifests: Sequence[str]) -> LongForms:
    """Overrides with every short form written out.

    Args:
        parsed: what the command was given.
        manifests: folders of the user's own manifests.

    Raises:
        UserError: names the element that is no set, no stage or no key of a stage.
    """
    sequences: dict[str, list[str]] = {}

    def sequence(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if not value:
            raise UserError("data=[]: no set, so nothing to train on; write names, such as data=[fashion_naming].")
        names = [_check_set_name(element, value, manifests) for element in value]
        if len(names) == 1:
            return names[0]
        option = "+".join(names).replace(":", ".")  # a colon divides a group's option from nothing else in Hydra
        sequences[option] = names
        return option

    forms: dict[str, Callable[[Any], Any]] = {
        "data": sequence,
        "data.stages": _stages,
        "recipe.mix.data": canonical_sets,
        "recipe.mix": _mix,
    }
    overrides = [
        _rewritten(override, forms[override.key_or_group]) if override.key_or_group in forms else override
        for override in parsed
    ]
    return LongForms(overrides, sequences)


def _rewritten(override: Override, form: Callable[[Any], Any]) -> Override:
    """An override, or each value of a swept one, in its long form."""
    if override.is_delete():
        return override
    if override.is_sweep_override():
        if not override.is_discrete_sweep() or override.value_type is ValueType.GLOB_CHOICE_SWEEP:
            return override
        given = [parse([f"x={text}"])[0].value() for text in override.sweep_string_iterator()]
    else:
        given = [override.value()]
    written = ",".join(as_text(form(value)) for value in given)
    if written == ",".join(map(as_text, given)):
        return override
    head = str(override.input_line).partition("=")[0]  # with the + of an addition
    return parse([f"{head}={written}"])[0]


def _check_set_name(element: Any, given: list[Any], manifests: Sequence[str]) -> str:
    where = f"data={as_text(given)}"
    if isinstance(element, Mapping):
        raise UserError(f"{where}: a stage with keys of its own is given as data.stages={as_text(given)}.")
    if not isinstance(element, str):
        raise UserError(
            f"{where}: {as_text(element)} is no set; write names, such as data=[fashion_naming,emoji_naming]."
        )
    if element in config_files("data"):
        raise UserError(
            f"{where}: '{element}' is a sequence of sets itself; give data={element} alone, or its sets by name."
        )
    known = options("data", manifests)
    if element.partition(":")[0] not in known:
        suggestion = nearest(element, known, known, "`forgetbench data list --all`")
        raise UserError(f"{where}: there is no dataset '{element}'. {suggestion}")
    return element


def _stages(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [_stage(f"data.stages[{index}]", stage) for index, stage in enumerate(value)]


def _stage(key: str, stage: Any) -> Any:
    if isinstance(stage, str):
        return {"set": stage}
    if not isinstance(stage, Mapping):
        raise UserError(
            f"{key} (command line): {as_text(stage)} is no stage; write a set's name, or {{set: <name>, steps: 100}}."
        )
    _check_types(key, stage, StageConfig)
    recipe = stage.get("recipe")
    if not isinstance(recipe, Mapping) or "mix" not in recipe:
        return stage
    return {**stage, "recipe": {**recipe, "mix": _mix(recipe["mix"])}}


def _check_types(key: str, given: Mapping[Any, Any], schema: type) -> None:
    """Refuse what a stage cannot hold; OmegaConf would name neither the stage nor, in the end, the command line."""
    try:
        OmegaConf.merge(OmegaConf.structured(schema), given)
    except OmegaConfBaseException as error:
        full = f"{key}.{error.full_key}"
        message = reworded((str(error).splitlines() or [""])[0], full)
        raise UserError(f"{full} (command line): {message}") from error


def _mix(value: Any) -> Any:
    if not isinstance(value, Mapping) or "data" not in value:
        return value
    return {**value, "data": canonical_sets(value["data"])}
