"""Nested settings: their dotted keys, and in which of them two differ."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any


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
