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


def differing_keys(first: Any, second: Any, ignored: Collection[str] = (), key: str = "") -> set[str]:
    """Dotted keys in which two settings differ; a missing key counts as None.

    Args:
        first: nested settings.
        second: nested settings.
        ignored: names of keys, at any depth, that may differ.
        key: the key above both.
    """
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return set() if first == second else {key}
    names = (first.keys() | second.keys()) - set(ignored)
    return {
        differing_key
        for name in names
        for differing_key in differing_keys(first.get(name), second.get(name), ignored, f"{key}.{name}".strip("."))
    }


def misplaced(record: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of the wrong type in lists and mappings of texts or numbers.

    OmegaConf checks the kind of every value but those: a list in a list of texts passes.

    Args:
        record: a dataclass.
        above: what stands before every key.
    """
    for name, kind in _kinds(type(record)).items():
        content = getattr(record, name)
        is_list = isinstance(content, list)
        inside = list(content.items() if isinstance(content, dict) else enumerate(content) if is_list else ())
        if is_dataclass(content):
            yield from misplaced(content, f"{above}{name}.")
        for place, value in inside:
            if is_dataclass(value):
                yield from misplaced(value, f"{above}{name}.{place}.")
            elif kind in (str, int, float) and not isinstance(value, kind):
                yield f"{above}{name}", value


def _kinds(kind: type[Any]) -> dict[str, Any]:
    """Field -> its type; for a list or mapping, the type of its elements."""
    return {
        name: get_args(hint)[-1] if get_origin(hint) in (list, dict) else hint for name, hint in _hints(kind).items()
    }


_hints: Any = cache(get_type_hints)
