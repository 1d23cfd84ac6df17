"""One contradiction, and checks that several settings share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from forgetbench.core.errors import UserError


@dataclass(frozen=True)
class Problem:
    """One contradiction."""

    key: str
    """The configuration key to change, e.g. `recipe.mix.ratio`."""
    message: str
    """What is wrong and what to do instead."""


def raised_problem(key: str, action: Callable[[], object]) -> Iterator[Problem]:
    """The problem that `action` raises as a UserError, if it does."""
    try:
        action()
    except UserError as error:
        yield Problem(key, str(error))


def at_least_1(key: str, value: int | None) -> Iterator[Problem]:
    """A number that must be 1 or more, if it is given."""
    if value is not None and value < 1:
        yield Problem(key, f"{value} is too small; give 1 or more.")


def duplicates(key: str, values: Iterable[object]) -> Iterator[Problem]:
    """Values that are listed twice."""
    values = list(values)
    for value in dict.fromkeys(values):
        if values.count(value) > 1:
            yield Problem(key, f"'{value}' is listed {values.count(value)} times; keep one.")
