"""Make a question with four options from a picture's class and the most similar class names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from forgetbench.core.records import LETTERS

CANDIDATES = 5
"""Number of most similar wrong names from which wrong options are drawn."""
WRONG = 3
"""Number of wrong options in a question."""
TEMPLATE = "a photo of {name}"
"""CLIP's text for a class."""


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names, ignoring case, in order of first occurrence: a question must not show two spellings of a name.

    ImageNet has two cranes, two maillots, and a Cardigan (a corgi) beside a cardigan.
    """
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.strip().casefold(), name.strip())
    return tuple(first.values())


def options(answer: str, nearest: Sequence[str], key: str) -> tuple[str, ...]:
    """Four options in the order shown: the answer and three of the five most similar wrong names.

    Args:
        answer: name of the picture's class.
        nearest: distinct names, the most similar first; the answer may be among them.
        key: the only thing the draw depends on: the seed and the picture.
    """
    same = answer.casefold()
    candidates = [name for name in nearest if name.casefold() != same][:CANDIDATES]
    wrong = _shuffled(candidates, f"{key}\0wrong options")[:WRONG]
    return tuple(_shuffled([answer, *wrong], f"{key}\0order"))


def option_letter(shown: Sequence[str], answer: str) -> str:
    """The letter of the right option."""
    return LETTERS[list(shown).index(answer)]


def _shuffled(names: Iterable[str], key: str) -> list[str]:
    """Sorted by a hash of the name and the key: the same on every machine and in every version of Python."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{key}\0{name}".encode()).digest())
