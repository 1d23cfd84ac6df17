"""Which settings decide a run's result. A field says that it does not; whoever needs the list reads it from here."""

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
    """Dotted keys of a configuration that do not decide a run's result; of a whole group, its own key and all in it.

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
    """A configuration as nested settings, less what does not decide the result, in its stages' recipes too."""
    left_out = set(without_result(kind))
    found = _less(settings, "", left_out)
    for stage in found.get("data", {}).get("stages", ()):
        stage["recipe"] = _less(stage.get("recipe") or {}, "recipe.", left_out)
    return found


def _less(settings: Mapping[str, Any], prefix: str, left_out: set[str]) -> dict[str, Any]:
    return {
        key: _less(value, f"{prefix}{key}.", left_out) if isinstance(value, Mapping) else _copied(value)
        for key, value in settings.items()
        if f"{prefix}{key}" not in left_out
    }


def _copied(value: Any) -> Any:
    """Lists of mappings (the stages) are copied, so that what is given stays as it is."""
    return [dict(one) if isinstance(one, Mapping) else one for one in value] if isinstance(value, list) else value
