"""Nested settings: their dotted keys, and in which of them two differ."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints


def leaves(settings: Mapping[str, Any], whole: Collection[str] = (), above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values, in order.

    Args:
        settings: may hold mappings in mappings.
        whole: names of keys whose mapping is one value, such as `lr` with a rate per part.
        above: what stands before every key.
    """
    for key, value in settings.items():
        if isinstance(value, Mapping) and key not in whole:
            yield from leaves(value, whole, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def differing(one: Any, other: Any, ignored: Collection[str] = (), key: str = "") -> set[str]:
    """Dotted keys in which two differ; one that a side lacks counts as None there.

    Args:
        one: nested settings.
        other: the same.
        ignored: names of keys, at any depth, that may differ.
        key: the key that both are the value of.
    """
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return set() if one == other else {key}
    names = (one.keys() | other.keys()) - set(ignored)
    return {
        found
        for name in names
        for found in differing(one.get(name), other.get(name), ignored, f"{key}.{name}".strip("."))
    }


def misplaced(record: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values that stand in lists and mappings of texts or numbers, and are neither.

    OmegaConf checks the kind of every value but those: a list in a list of texts passes.

    Args:
        record: a dataclass.
        above: what stands before every key.
    """
    for name, kind in _kinds(type(record)).items():
        held = getattr(record, name)
        inside = list(held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ())
        if is_dataclass(held):
            yield from misplaced(held, f"{above}{name}.")
        for place, value in inside:
            if is_dataclass(value):
                yield from misplaced(value, f"{above}{name}.{place}.")
            elif kind in (str, int, float) and not isinstance(value, kind):
                yield f"{above}{name}", value


def _kinds(kind: type[Any]) -> dict[str, Any]:
    """Field -> the kind of what it holds; of a list or mapping, of what that holds."""
    return {
        name: get_args(hint)[-1] if get_origin(hint) in (list, dict) else hint for name, hint in _hints(kind).items()
    }


_hints: Any = cache(get_type_hints)
