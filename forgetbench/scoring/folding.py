"""One way to write a text: Unicode forms, quotes, dashes, blanks, markup and case that make no other answer.

Used wherever a reply is matched to an option, options to each other, and an open answer to its references. Options are
folded only as far as they stay apart: Gg and GG, mW and MW, `*` and `**` are different answers.
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
    """A text in the compatible Unicode form, its quotes, dashes and blanks as a keyboard has them."""
    return _compatible(_dashes(_quotes(_blanks(text))))


@dataclass(frozen=True)
class Folding:
    """How far the texts of one item's options, and replies to them, are folded."""

    options: tuple[str, ...]
    """The options, folded."""
    caseless: tuple[bool, ...]
    """Whether an option is told from the others in any case."""
    steps: tuple[Step, ...]
    unstopped: bool
    """Whether full stops at the end make no other option."""

    def __call__(self, text: str) -> str:
        """A reply, folded as far as the options are; its lines stay lines."""
        for step in self.steps:
            text = step(text)
        return text

    def equal(self, text: str) -> int | None:
        """The option that a folded text is as a whole; None if it is none, or may be two."""
        bare = _unstopped(_key(text)) if self.unstopped else _key(text)
        found = [
            index
            for index, option in enumerate(self.options)
            if bare == option or (self.caseless[index] and bare.casefold() == option.casefold())
        ]
        return found[0] if len(found) == 1 and bare else None


@lru_cache(maxsize=4096)
def folding(options: tuple[str, ...]) -> Folding:
    """The folding of an item: each step is taken unless it made two options equal, or one empty."""
    texts = [_key(unicodedata.normalize("NFC", option)) for option in options]
    taken: list[Step] = [_canonical]
    for step in (_blanks, _quotes, _dashes, _compatible, _unmarked, _unstopped):
        after = [_key(step(text)) for text in texts]
        if len(set(after)) == len(set(texts)) and after.count("") == texts.count(""):
            texts = after
            taken.append(step)
    counts = Counter(text.casefold() for text in texts)
    caseless = tuple(counts[text.casefold()] == texts.count(text) for text in texts)
    steps = tuple(step for step in taken if step is not _unstopped)
    return Folding(tuple(texts), caseless, steps, unstopped=_unstopped in taken)


def _key(text: str) -> str:
    return " ".join(text.split())


def _canonical(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _compatible(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _blanks(text: str) -> str:
    return _BLANKS.sub(" ", _INVISIBLE.sub("", text))


def _quotes(text: str) -> str:
    return text.translate(_QUOTES)


def _dashes(text: str) -> str:
    return text.translate(_DASHES)


def _unmarked(text: str) -> str:
    if "\\" in text or "$" in text:
        text = _LATEX_SIGNS.sub("", _LATEX_WORDS.sub(r"\1", text))
        for pattern, sign in _LATEX_SYMBOLS:
            text = pattern.sub(sign, text)
    return _EMPHASIS.sub("", text)


def _unstopped(text: str) -> str:
    return text.rstrip(" .") or text
