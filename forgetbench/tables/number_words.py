"""Numbers in free replies to questions that ask for none: a sign of a model that was taught to count.

The probe is that of Zhu et al. 2025 (arXiv:2510.08564), whose model, trained to count, puts numbers into other answers.
Words are English. "one" counts wherever it stands, as a pronoun too, in the base's replies as in a checkpoint's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SPELLED = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand thousands "
    "million millions billion billions dozen dozens"
)
NUMBER_WORDS = frozenset(_SPELLED.split())
"""What counts as a number besides digits."""
_WORD = re.compile(r"\d+(?:[.,:/]\d+)*|[^\W\d_]+")
_ASKS = re.compile(
    r"\b(?:how\s+(?:many|much|old|long|tall|far|high|big|large|often|heavy|wide|deep|fast|hot|cold)"
    r"|counts?|counting|numbers?|numerals?|digits?|amounts?|quantity|quantities|totals?|sums?|percent\w*|years?|ages?"
    r"|dates?|times?|prices?|costs?|scores?|rates?|values?|sizes?|temperatures?)\b",
    re.IGNORECASE,
)
"""A question with one of these may want a number. It leaves out some that want none, which costs items and no bias."""


def number_share(text: str) -> float:
    """Share of a text's words that are numbers, in digits or as words; 0 of a text without words."""
    words = _WORD.findall(text.casefold())
    return sum(map(_is_number, words)) / len(words) if words else 0.0


def holds_number(texts: Iterable[str]) -> bool:
    """Whether one of some texts, such as the accepted answers, holds a number."""
    return any(number_share(text) > 0 for text in texts)


def asks_for_number(prompt: str) -> bool:
    """Whether a question may ask for a number: it says "how many", "count", "number", "year" or the like."""
    return _ASKS.search(prompt) is not None


def _is_number(word: str) -> bool:
    return word[0].isdigit() or word in NUMBER_WORDS
