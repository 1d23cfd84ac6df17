"""Numbers that no setting can have, wherever they stand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from forgetbench.compose.checks.problem import Problem

_BITS = 63


def number_problems(config: Any) -> Iterator[Problem]:
    """What is not a number, and whole numbers that no column, file or library holds; seeds below 0."""
    for key, value in _leaves(config, ""):
        if isinstance(value, float) and math.isnan(value):
            yield Problem(key, "nan is not a number.")
        elif isinstance(value, int) and abs(value) >= 2**_BITS:
            yield Problem(key, f"{str(value)[:20]}... is too large; give a number below 2^{_BITS}.")
        elif key.rpartition(".")[2] in ("seed", "sample_seed") and value is not None and value < 0:
            yield Problem(key, f"{value} is negative; give 0 or more.")


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every value of a configuration by its dotted key."""
    if is_dataclass(value):
        inside: Mapping[Any, Any] = {field.name: getattr(value, field.name) for field in fields(value)}
    elif isinstance(value, Mapping):
        inside = value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        inside = dict(enumerate(value))
    else:
        yield key, value
        return
    for name, element in inside.items():
        yield from _leaves(element, f"{key}.{name}" if key else str(name))
