"""Turn a picture's class and the names nearest to it into a question with four options."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from forgetbench.core.records import LETTERS

CANDIDATES = 5
"""Wrong names that wrong options are drawn from: the most similar ones."""
WRONG = 3
"""Wrong options in a question."""
TEMPLATE = "a photo of {name}"
"""What CLIP reads for a class."""


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Names as they first come, leaving out those that differ in capitals only: one question could show both.

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
        key: what the draw depends on, and nothing else: the seed and the picture.
    """
    same = answer.casefold()
    candidates = [name for name in nearest if name.casefold() != same][:CANDIDATES]
    wrong = _shuffled(candidates, f"{key}\0wrong options")[:WRONG]
    return tuple(_shuffled([answer, *wrong], f"{key}\0order"))


def letter(shown: Sequence[str], answer: str) -> str:
    """The letter of the right option."""
    return LETTERS[list(shown).index(answer)]


def _shuffled(names: Iterable[str], key: str) -> list[str]:
    """Sorted by a hash of the name and the key: the same on every machine and in every version of Python."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{key}\0{name}".encode()).digest())
