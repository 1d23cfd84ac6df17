"""Lists of names that hold something else; OmegaConf lets lists in lists pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from forgetbench.compose.checks.problem import Problem
from forgetbench.core.override_text import as_text


def list_problems(config: Any, above: str = "") -> Iterator[Problem]:
    """Elements of a list of texts that are none."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        value, key = getattr(config, field.name), f"{above}{field.name}"
        if is_dataclass(value):
            yield from list_problems(value, f"{key}.")
        elif hints[field.name] in (list[str], list[str] | None):
            for one in value or ():
                if not isinstance(one, str):
                    yield Problem(key, f"{as_text(one)} is no name; write [a,b].")
