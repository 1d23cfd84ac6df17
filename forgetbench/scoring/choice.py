"""Which option an answer is: the likeliest one, or the one that its text names.

None where a careful reader could not tell either: a reply that names two options, or whose letter and text contradict,
is unparsed, so that format failure and wrong answer stay two different things.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from forgetbench.core.records import LETTERS

# Stands for an option's text once found, so that "Vitamin C" is not also read as the letter C.
_NAMED = "\x00"
_MARKUP = re.compile(r"[*`]")
_NEGATED = re.compile(rf"(?:\bnot|n't)\s+(?:(?:an?|the|option)\s+)*[(\[]?(?:{_NAMED}|[A-Z]\b)")

# Letters set off by their position, in either case: "b.", "(b) ...", "Answer: b", "... (b)".
_MARKED_LETTERS = (
    re.compile(r"^[(\[]?([A-Za-z])(?:[.:)\]]+(?!\w)|\s*$)"),
    re.compile(
        r"\b(?:answer|option|choice)(?:\s+is)?\s*:?\s*[(\[]?([A-Za-z])(?=[.:)\]]|\s*$)",
        re.IGNORECASE,
    ),
    re.compile(r"(?<!\w)[(\[]([A-Za-z])[)\]]"),
)
# Capitals that stand alone, but not in "T-shirt", nor as the words "A" (dog) and "I" (think).
_BARE_LETTER = re.compile(
    r"(?<![\w'\u2019-])"
    rf"(?:[B-HJ-Z]|[AI](?![ \t]+(?!(?:[A-Z]|or|and|because|since|is)\b)[\w{_NAMED}]))"
    r"(?![\w'\u2019-])"
)


def likeliest(logprobs: Sequence[float]) -> int:
    """Index of the highest log-probability; the first of equals (lm-evaluation-harness's `acc`)."""
    return max(range(len(logprobs)), key=logprobs.__getitem__)


def likeliest_per_character(logprobs: Sequence[float], texts: Sequence[str]) -> int:
    """Index of the highest log-probability per character, so that long candidates are not at a disadvantage.

    This is lm-evaluation-harness's `acc_norm`. Its length is that of the candidate's text as the task lists it, in
    characters (its `acc_bytes` counts UTF-8 bytes), without the space that joins it to the prompt, although the
    log-probability includes that space. An empty text counts as one character.
    """
    return likeliest([logprob / max(len(text), 1) for logprob, text in zip(logprobs, texts, strict=True)])


def parse_choice(text: str, options: Sequence[str]) -> int | None:
    """Index of the lettered option that `text` names by letter, by text or by both.

    Args:
        text: what the model wrote.
        options: option texts in the order shown; the first is A.

    Returns:
        None for an empty or ambiguous reply, a contradiction, or a letter beyond the options.
    """
    valid = LETTERS[: len(options)]
    by_text, rest = _find_texts(text, options, skip=set(valid))
    marked = {letter.upper() for pattern in _MARKED_LETTERS for letter in pattern.findall(rest)}
    bare = set(_BARE_LETTER.findall(rest)) & set(valid)
    if _NEGATED.search(rest) or not marked <= set(valid):
        return None
    return _only(by_text | {valid.index(letter) for letter in marked | bare})


def parse_option(text: str, options: Sequence[str]) -> int | None:
    """Index of the one unlettered option, such as yes or no, that `text` names; or None."""
    named, rest = _find_texts(text, options)
    return None if _NEGATED.search(rest) else _only(named)


def _find_texts(
    text: str, options: Sequence[str], skip: set[str] | frozenset[str] = frozenset()
) -> tuple[set[int], str]:
    """The options whose texts occur in `text`, longest match first, and `text` without them.

    A text in `skip` (it looks like an option's letter) or shared by two options names none.
    """
    keys = [_key(option) for option in options]
    counts = Counter(keys)
    index = {key: i for i, key in enumerate(keys) if key and counts[key] == 1 and key.upper() not in skip}
    reply = _MARKUP.sub("", text).strip()
    # Most replies hold one text or none: the pattern is of those alone, hence soon one that is known.
    folded = " ".join(reply.split()).casefold()
    present = tuple(sorted((key for key in index if key.casefold() in folded), key=len, reverse=True))
    if not present:
        return set(), reply
    pattern = _any_of(present)
    named = {index[present[match.lastindex - 1]] for match in pattern.finditer(reply) if match.lastindex}
    return named, pattern.sub(_NAMED, reply)


@lru_cache(maxsize=4096)
def _any_of(keys: tuple[str, ...]) -> re.Pattern[str]:
    """A whole word or phrase that is one of the keys, in a group each; the first that fits wins."""
    groups = "|".join("({})".format(re.escape(key).replace(r"\ ", r"\s+")) for key in keys)
    # Word borders that also hold for "t-shirt", "3.5" and texts that end in a symbol.
    return re.compile(rf"(?<![\w-])(?<!\d[.,])(?:{groups})(?![\w-])(?![.,]\d)", re.IGNORECASE)


@lru_cache(maxsize=4096)
def _key(option: str) -> str:
    return " ".join(_MARKUP.sub("", option).lower().split()).rstrip(".")


def _only(indices: set[int]) -> int | None:
    return next(iter(indices)) if len(indices) == 1 else None
