"""Overrides that follow from those given: what they displace, what they leave open, and the names of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from forgetbench.compose.overrides import folder_name, left_out_of_names, parse, quoted
from forgetbench.config.recipe import MIX_RATIO

_WAYS = {"every": "null", "steps": "[]", "log_spaced": "null"}
"""The three ways of choosing checkpoints, and the value that switches each off."""
_MIX, _RATIO = "recipe.mix.data", "recipe.mix.ratio"
_POINT_NAME = "hydra.job.config.override_dirname"


def keys_of(parsed: Sequence[Override]) -> set[str]:
    """The keys and groups that overrides give."""
    return {override.key_or_group for override in parsed}


def displaced(parsed: Sequence[Override], config: DictConfig) -> list[str]:
    """Overrides that empty the other ways of choosing checkpoints, where one is given and a file has another."""
    ways = {f"recipe.checkpoints.{name}": empty for name, empty in _WAYS.items()}
    given = ways.keys() & keys_of(parsed)
    if len(given) != 1 or not OmegaConf.select(config, next(iter(given))):
        return []
    others = [key for key in ways if key not in given and OmegaConf.select(config, key)]
    return [f"{key}={ways[key]}" for key in others]


def mix_ratio(parsed: Sequence[Override], config: DictConfig) -> list[str]:
    """An override with the default mix ratio, where auxiliary sets are named and nothing gives a ratio."""
    given = [override for override in parsed if override.key_or_group == _MIX]
    open_keys = {"recipe", _RATIO, "recipe.mix"}
    if not given or open_keys & axes(parsed, config) or {_RATIO, "recipe.mix"} & keys_of(parsed):
        return []
    values = _values(given[-1])
    names_some = bool(values) and all(isinstance(value, list) and value for value in values)
    return [f"{_RATIO}={MIX_RATIO}"] if names_some and OmegaConf.select(config, _RATIO) == 0 else []


def axes(parsed: Sequence[Override], config: DictConfig) -> set[str]:
    """Keys that a sweep varies: those of its file, even if the command line narrows them, and swept overrides."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return {*map(str, params), *keys_of([override for override in parsed if override.is_sweep_override()])}


def sweep_names(parsed: Sequence[Override], config: DictConfig) -> list[str]:
    """Overrides that leave constant keys out of the points' names, and put them into the sweep's, if none is given.

    So a point's name is the same in whatever order keys are given, and two different sweeps share no folder.
    """
    left_out = left_out_of_names("sweep", "launcher")
    constant = [
        override
        for override in parsed
        if not override.is_hydra_override() and override.key_or_group not in {*left_out, *axes(parsed, config)}
    ]
    excluded = sorted({*left_out, *keys_of(constant)})
    lines = [f"{_POINT_NAME}.exclude_keys=[{','.join(excluded)}]"] if constant else []
    if "name" in keys_of(parsed):
        return lines
    choice = str(config.hydra.runtime.choices.sweep)
    swept = keys_of([override for override in parsed if override.is_sweep_override()])
    prefix = f"{choice}-{folder_name(*sorted(swept))}" if choice == "grid" and swept else choice
    settings = config.hydra.job.config.override_dirname
    name = folder_name(prefix, get_overrides_dirname(constant, [], settings.item_sep, settings.kv_sep))
    return [*lines, f"name={quoted(name)}"] if name != choice else lines


def _values(override: Override) -> list[object]:
    """The value of an override, or the known values of a swept override."""
    if not override.is_sweep_override():
        return [override.value()]
    if not override.is_choice_sweep():
        return []
    return [parse([f"x={text}"])[0].value() for text in override.sweep_string_iterator()]
