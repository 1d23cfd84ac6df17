"""Folding: remove differences between texts that do not change the answer.

These are Unicode forms, quotes, dashes, blanks, markup and case. Folding is used to match a reply to an option, options
to each other, and an open answer to its references. A step that would make two options of an item equal is not taken:
Gg and GG, mW and MW, `*` and `**` are different answers.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufe0e\ufe0f\ufeff]")
_BLANKS = re.compile(r"[^\S\n]+")
_QUOTES = str.maketrans({**dict.fromkeys("‘’‚‛′´ʼ＇", "'"), **dict.fromkeys("“”„‟«»″＂", '"')})
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−﹣－", "-"))
_LATEX_WORDS = re.compile(r"\\(?:text|textbf|textrm|textit|mathrm|mathbf|mathit|mathsf|rm|bf)\s*\{([^{}]*)\}")
_LATEX_SIGNS = re.compile(r"\\[()\[\],;! ]|\$")
_LATEX_SYMBOLS = tuple(
    (re.compile(pattern), sign)
    for pattern, sign in (
        (r"\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})", "°"),
        (r"\\[dt]frac\b", r"\\frac"),
        (r"\\(?:left|right)\b", ""),
        (r"\\times\b", "×"),
        (r"\\(?=[%&#{}])", ""),
    )
)
_EMPHASIS = re.compile(r"[*`]")

Step = Callable[[str], str]


def plain(text: str) -> str:
    """A text in Unicode form NFKC, with plain quotes, dashes and blanks."""
    return _nfkc(_dashes(_quotes(_blanks(text))))


@dataclass(frozen=True)
class Folding:
    """The folding of one item's options and of replies to it."""

    options: tuple[str, ...]
    """The options, folded."""
    caseless: tuple[bool, ...]
    """Whether each option differs from the others even without case."""
    steps: tuple[Step, ...]
    ignores_full_stops: bool
    """Whether full stops at the end are dropped."""

    def __call__(self, text: str) -> str:
        """Fold a reply like the options; line breaks stay."""
        for step in self.steps:
            text = step(text)
        return text

    def matching_option(self, text: str) -> int | None:
        """The option that equals a folded text; None if there is none, or more than one."""
        bare = _without_full_stops(_single_spaces(text)) if self.ignores_full_stops else _single_spaces(text)
        matches = [
            index
            for index, option in enumerate(self.options)
            if bare == option or (self.caseless[index] and bare.casefold() == option.casefold())
        ]
        return matches[0] if len(matches) == 1 and bare else None


@lru_cache(maxsize=4096)
def folding(options: tuple[str, ...]) -> Folding:
    """The folding of an item: all steps except those that make two options equal, or an option empty."""
    texts = [_single_spaces(unicodedata.normalize("NFC", option)) for option in options]
    taken: list[Step] = [_nfc]
    for step in (_blanks, _quotes, _dashes, _nfkc, _without_markup, _without_full_stops):
        after = [_single_spaces(step(text)) for text in texts]
        if len(set(after)) == len(set(texts)) and after.count("") == texts.count(""):
            texts = after
            taken.append(step)
    counts = Counter(text.casefold() for text in texts)
    caseless = tuple(counts[text.casefold()] == texts.count(text) for text in texts)
    steps = tuple(step for step in taken if step is not _without_full_stops)
    return Folding(tuple(texts), caseless, steps, ignores_full_stops=_without_full_stops in taken)


def _single_spaces(text: str) -> str:
    return " ".join(text.split())


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _blanks(text: str) -> str:
    return _BLANKS.sub(" ", _INVISIBLE.sub("", text))


def _quotes(text: str) -> str:
    return text.translate(_QUOTES)


def _dashes(text: str) -> str:
    return text.translate(_DASHES)


def _without_markup(text: str) -> str:
    if "\\" in text or "$" in text:
        text = _LATEX_SIGNS.sub("", _LATEX_WORDS.sub(r"\1", text))
        for pattern, sign in _LATEX_SYMBOLS:
            text = pattern.sub(sign, text)
    return _EMPHASIS.sub("", text)


def _without_full_stops(text: str) -> str:
    return text.rstrip(" .") or text
