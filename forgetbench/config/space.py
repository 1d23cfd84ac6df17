"""A search space in plain words, as `search.space` gives it, read into typed dimensions.

recipe.lr: {log: [1e-5, 1e-2]}
recipe.parts: {choice: [[language], [language, projector]]}
method: {choice: {plain: {}, ewc: {method.strength: {log: [10, 10000]}}}}
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.core.override_text import as_text

RANGES = ("log", "uniform", "integers")
KINDS = (*RANGES, "choice")
_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_DIGITS = 3
"""Significant digits of a number that is searched: no result depends on more, and folders are named after it."""


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included."""

    kind: str
    low: float
    high: float

    def rounded(self, value: float) -> float:
        """A number of the range as overrides give it."""
        if self.kind == "integers":
            return round(value)
        return min(self.high, max(self.low, float(f"{value:.{_DIGITS}g}")))


@dataclass(frozen=True)
class Option:
    """One choice, and what is searched only where it is chosen."""

    text: str
    """As an override gives it."""
    dimensions: tuple[Dimension, ...] = ()


@dataclass(frozen=True)
class Dimension:
    """One key that is searched."""

    key: str
    values: Range | tuple[Option, ...]
    under: str = ""
    """The choices it depends on, such as `method=ewc`."""

    @property
    def label(self) -> str:
        """A name that differs between dimensions of one key under different choices."""
        return f"{self.key} ({self.under})" if self.under else self.key


Choose = Callable[[Dimension], Any]
"""A number of a dimension's range, or the text of one of its options."""


def read_space(given: Mapping[str, Any]) -> tuple[Dimension, ...]:
    """The dimensions of a space, in the order in which they are given.

    Raises:
        UserError: names the key, and what was expected.
    """
    return tuple(_dimensions(given, "", "search.space"))


def overrides(space: Sequence[Dimension], choose: Choose) -> list[str]:
    """One point: an override for each key that applies; a key under a choice replaces the same key outside.

    Args:
        space: what is searched.
        choose: a value of each.
    """
    return [f"{key}={value}" for key, value in _values(space, choose).items()]


def _values(space: Sequence[Dimension], choose: Choose) -> dict[str, str]:
    by_key, nested = dict[str, str](), dict[str, str]()
    for dimension in space:
        value = choose(dimension)
        if isinstance(dimension.values, Range):
            by_key[dimension.key] = as_text(dimension.values.rounded(value))
        else:
            by_key[dimension.key] = value
            option = next(option for option in dimension.values if option.text == value)
            nested |= _values(option.dimensions, choose)
    return by_key | nested


def corners(space: Sequence[Dimension], most: int) -> list[list[str]]:
    """Points to try a space with: every choice with every other, all numbers at their lowest, then at their highest.

    Args:
        space: what is searched.
        most: combinations of choices, at most; of a larger space, each choice at least once.
    """
    combinations = list(islice(_choice_combinations(space), most + 1))
    if len(combinations) > most:
        combinations = list(_each_choice(space))
    low = [overrides(space, partial(_low, choices=choices)) for choices in combinations]
    high = [overrides(space, partial(_high, choices=choices)) for choices in combinations]
    return [list(point) for point in dict.fromkeys(map(tuple, [*low, *high]))]


def keys(space: Sequence[Dimension]) -> list[str]:
    """The keys that a space searches, without those that it names twice."""
    return list(dict.fromkeys(dimension.key for dimension in every_dimension(space)))


def every_dimension(space: Sequence[Dimension]) -> Iterator[Dimension]:
    """The dimensions, those under choices too."""
    for dimension in space:
        yield dimension
        for option in dimension.values if isinstance(dimension.values, tuple) else ():
            yield from every_dimension(option.dimensions)


def _dimensions(given: Any, under: str, where: str) -> Iterator[Dimension]:
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: {as_text(given)} is no mapping of keys; write {{recipe.lr: {{log: [1e-5, 1e-2]}}}}.")
    for key, values in given.items():
        if not _KEY.fullmatch(str(key)):
            raise UserError(
                f"{where}: {as_text(key)} is no key; write one as the command line does, such as recipe.lr."
            )
        if values is not None:
            yield _dimension(str(key), values, under, f"{where}.{key}")


def _dimension(key: str, given: Any, under: str, where: str) -> Dimension:
    kinds = [kind for kind in given if given[kind] is not None] if isinstance(given, Mapping) else []
    if len(kinds) != 1 or kinds[0] not in KINDS:
        raise UserError(
            f"{where}: {as_text(given)} says no range; expected one of {{log: [low, high]}}, {{uniform: [low, high]}}, "
            "{integers: [low, high]}, {choice: [...]}."
        )
    kind, values = kinds[0], given[kinds[0]]
    if kind == "choice":
        return Dimension(key, tuple(_options(key, values, under, where)), under)
    return Dimension(key, _range(kind, values, where), under)


def _range(kind: str, given: Any, where: str) -> Range:
    is_pair = isinstance(given, list | tuple) and len(given) == 2
    if not is_pair or not all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in given):
        raise UserError(f"{where}: {as_text(given)} is no pair of numbers; write {{{kind}: [low, high]}}.")
    low, high = given
    if not (-math.inf < low < high < math.inf):
        raise UserError(f"{where}: {low} to {high} is no range; the first number must be the lower one.")
    if kind == "log" and low <= 0:
        raise UserError(f"{where}: {low} has no logarithm; begin above 0, or write uniform.")
    if kind == "integers" and not all(float(bound).is_integer() for bound in given):
        raise UserError(f"{where}: {as_text(given)} are no whole numbers; write uniform for others.")
    return Range(kind, low, high)


def _options(key: str, given: Any, under: str, where: str) -> Iterator[Option]:
    if not isinstance(given, Mapping | list | tuple) or len(given) < 2:
        raise UserError(f"{where}: {as_text(given)} is no choice; list two values or more.")
    texts = [as_text(value) for value in given]
    if doubled := [text for text in texts if texts.count(text) > 1]:
        raise UserError(f"{where}: {doubled[0]} is listed twice; keep one.")
    for value, text in zip(given, texts, strict=True):
        dimensions = given[value] if isinstance(given, Mapping) else None
        below = " ".join(filter(None, (under, f"{key}={text}")))
        yield Option(text, tuple(_dimensions(dimensions or {}, below, f"{where}.choice.{value}")))


def _choice_combinations(space: Sequence[Dimension]) -> Iterator[dict[str, str]]:
    """Label -> choice, in every combination."""
    choices = [list(_dimension_choices(dimension)) for dimension in space]
    for combination in product(*choices):
        yield {label: text for chosen in combination for label, text in chosen.items()}


def _dimension_choices(dimension: Dimension) -> Iterator[dict[str, str]]:
    if isinstance(dimension.values, Range):
        yield {}
        return
    for option in dimension.values:
        for chosen in _choice_combinations(option.dimensions):
            yield {dimension.label: option.text, **chosen}


def _each_choice(space: Sequence[Dimension]) -> Iterator[dict[str, str]]:
    """Label -> choice, each option of each outer dimension beside the first options of the others."""
    first = {label: text for dimension in space for label, text in next(_dimension_choices(dimension)).items()}
    for dimension in space:
        for chosen in _dimension_choices(dimension):
            yield {**first, **chosen}


def _low(dimension: Dimension, choices: Mapping[str, str]) -> Any:
    return dimension.values.low if isinstance(dimension.values, Range) else choices[dimension.label]


def _high(dimension: Dimension, choices: Mapping[str, str]) -> Any:
    return dimension.values.high if isinstance(dimension.values, Range) else choices[dimension.label]
