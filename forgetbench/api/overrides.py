"""Keys as Python values, written as the overrides that mean the same, so that Hydra composes and checks both alike."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from numbers import Real
from typing import Any, get_type_hints

from forgetbench.core.errors import UserError
from forgetbench.core.override_text import as_text
from forgetbench.core.references import literal


def as_overrides(kind: type[Any], overrides: Sequence[str], keys: Mapping[str, Any]) -> list[str]:
    """The given overrides, followed by an override for each key.

    Args:
        kind: the command's configuration.
        overrides: as on the command line.
        keys: values by key; a mapping holds the keys of a group.

    Raises:
        UserError: a value is of a kind that no key takes.
    """
    if not isinstance(overrides, list | tuple) or not all(isinstance(line, str) for line in overrides):
        raise UserError(f"{overrides!r}: overrides are a list of texts, such as ['recipe.lr=1e-4', 'name=mine'].")
    return [*overrides, *(f"{key}={_override_value(key, value)}" for key, value in _leaves(kind, keys))]


def _leaves(kind: Any, keys: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; a mapping is flattened at the top, and where the configuration has keys below it."""
    kinds = get_type_hints(kind) if is_dataclass(kind) else {}
    for name, value in keys.items():
        key, inner = f"{above}{name}", kinds.get(str(name))
        is_flattened = not above or is_dataclass(inner) or key.startswith("hydra.")
        if isinstance(value, Mapping) and is_flattened:
            yield from _leaves(inner, value, f"{key}.")
        else:
            yield key, value


def _override_value(key: str, value: Any) -> str:
    _check_type(key, value)
    if isinstance(value, tuple):
        if not value:
            raise UserError(f"{key}=(): no value. A tuple is a point of a sweep for each of its values; a list is one.")
        return ",".join(as_text(literal(_with_text_paths(element))) for element in value)
    return as_text(literal(_with_text_paths(value)))


def _with_text_paths(value: Any) -> Any:
    """Paths as texts, in lists and mappings, too."""
    if isinstance(value, Mapping):
        return {key: _with_text_paths(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [_with_text_paths(element) for element in value]
    return os.fsdecode(value) if isinstance(value, os.PathLike) else value


def _check_type(key: str, value: Any) -> None:
    """Refuse what is neither text, number, path nor made of these."""
    if isinstance(value, Mapping):
        for name, element in value.items():
            _check_type(f"{key}.{name}", element)
    elif isinstance(value, list | tuple):
        for place, element in enumerate(value):
            _check_type(f"{key}[{place}]", element)
    elif not (value is None or isinstance(value, str | Real | os.PathLike)):
        raise UserError(
            f"{key}: {value!r} is of type {type(value).__name__}; give a text, a number, a path, True or False, None, "
            "or lists and mappings of these."
        )
