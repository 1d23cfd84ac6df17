"""Which settings decide a run's result: all fields but those that are marked with NO_RESULT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, get_type_hints

_KEY = "decides_result"
NO_RESULT = MappingProxyType({_KEY: False})
"""A field's `metadata`: two runs that differ in this setting alone have the same result.

Such a setting is in no folder's name, is not compared when a run is taken up again, and does not tell recipes apart."""


@cache
def without_result(kind: type) -> tuple[str, ...]:
    """Dotted keys of a configuration that do not decide a run's result; for a whole group, its key and all keys in it.

    Args:
        kind: a dataclass such as `FinetuneConfig`.
    """
    return tuple(_marked(kind, "", False))


def _marked(kind: type, prefix: str, inside: bool) -> Iterator[str]:
    hints = get_type_hints(kind)
    for field in fields(kind):
        marked = inside or not field.metadata.get(_KEY, True)
        if marked:
            yield f"{prefix}{field.name}"
        if is_dataclass(hints[field.name]):
            yield from _marked(hints[field.name], f"{prefix}{field.name}.", marked)


def deciding(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a configuration that decide the result, nested; of the recipes of its stages, too."""
    left_out = set(without_result(kind))
    deciding_settings = _without(settings, "", left_out)
    for stage in deciding_settings.get("data", {}).get("stages", ()):
        stage["recipe"] = _without(stage.get("recipe") or {}, "recipe.", left_out)
    return deciding_settings


def _without(settings: Mapping[str, Any], prefix: str, left_out: set[str]) -> dict[str, Any]:
    return {
        key: _without(value, f"{prefix}{key}.", left_out) if isinstance(value, Mapping) else _copy(value)
        for key, value in settings.items()
        if f"{prefix}{key}" not in left_out
    }


def _copy(value: Any) -> Any:
    """Copy lists of mappings (the stages), so that the given settings stay unchanged."""
    return (
        [dict(element) if isinstance(element, Mapping) else element for element in value]
        if isinstance(value, list)
        else value
    )
