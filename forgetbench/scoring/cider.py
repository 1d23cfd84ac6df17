"""CIDEr-D of captions (Vedantam, Zitnick & Parikh 2015), without the Java tokeniser of the public script.

The tokens are those of Stanford's PTB tokeniser less COCO's list of punctuation, as that pair really behaves: brackets
stay, since the list has them in capitals and the tokens are lower-case. It differs in what captions rarely hold:
rarer abbreviations lose their period ("no."), a signed number its sign, and "!!!", URLs, smileys, markup, "'90s",
"y'all" and currencies other than the dollar are split or kept otherwise.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

Gram = tuple[str, ...]

_LONGEST = 4
"""Words of the longest n-gram."""
_SIGMA = 6.0
"""Width of the length penalty, in words."""

_LETTER = r"[^\W\d_]"
_TOKEN = re.compile(
    rf"""
    n't\b | '(?:s|re|ve|ll|d|m)\b                           # what contractions end in: is n't, dog 's
    | \w+?(?=n't\b)                                         # and begin with
    | \b(?:can(?=not\b) | (?:gon|wan)(?=na\b) | got(?=ta\b) | (?:gim|lem)(?=me\b))
    | {_LETTER}(?:\.{_LETTER})+\b\.? | \b(?:mrs?|ms|drs?|st|jr|sr|vs|etc)\.   # u.s., mr.
    | \d+(?:[.,:]\d+)+                                      # 1,000 and 3:30
    | \w+(?:(?:[-/] | [.!?](?={_LETTER}) | '(?!(?:s|re|ve|ll|d|m)\b)(?={_LETTER}))\w+)*  # t-shirt, and/or, o'clock
    | [^\w\s'"`.?!,:;\u2010-\u2015\u2018-\u201f\u2026-]     # other signs stand alone; punctuation is left out
    """,
    re.VERBOSE,
)


def cider_d(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each item, from 0 to 10; the corpus score is their mean.

    The cosine of tf-idf vectors of n-grams, clipped to the reference's counts and lessened by the difference in length,
    averaged over n = 1 to 4 and over the references. Document frequencies are over the items' references ("corpus").
    So an item's score depends on the other items. A single item scores 0, since every idf is log 1. A text equal to its
    references scores 10 if, for each n, it has an n-gram that another item's references lack; this needs 4 words.

    Args:
        texts: of the model, one per item.
        references: the captions of each item; an item without captions scores 0.
    """
    captions = [[_ngrams(caption) for caption in group] for group in references]
    frequency = Counter(gram for group in captions for gram in set[Gram]().union(*group))
    vector = partial(_vector, frequency=frequency, items=len(texts))
    return [
        10 * sum(_similarity(answer, vector(caption)) for caption in group) / max(len(group), 1)
        for answer, group in zip((vector(_ngrams(text)) for text in texts), captions, strict=True)
    ]


def tokens(caption: str) -> list[str]:
    """Lower-case words and signs of a caption, without punctuation."""
    return _TOKEN.findall(caption.lower().replace("\u2019", "'"))


@dataclass(frozen=True)
class _Vector:
    """A caption's tf-idf weights and their norm, for each n."""

    weights: tuple[dict[Gram, float], ...]
    norms: tuple[float, ...]
    length: int
    """Number of bigrams: the public script's length, one less than the words."""


def _ngrams(caption: str) -> Counter[Gram]:
    words = tokens(caption)
    return Counter(gram for n in range(1, _LONGEST + 1) for gram in zip(*(words[i:] for i in range(n)), strict=False))


def _vector(grams: Counter[Gram], frequency: Counter[Gram], items: int) -> _Vector:
    """Counts times log(items / items whose references have the n-gram); an unknown n-gram counts as in one item."""
    weights: tuple[dict[Gram, float], ...] = tuple({} for _ in range(_LONGEST))
    for gram, count in grams.items():
        weights[len(gram) - 1][gram] = count * math.log(items / frequency.get(gram, 1))
    norms = tuple(math.sqrt(sum(weight * weight for weight in by_n.values())) for by_n in weights)
    return _Vector(weights, norms, sum(count for gram, count in grams.items() if len(gram) == 2))


def _similarity(answer: _Vector, reference: _Vector) -> float:
    """Mean over n of the clipped cosine, times the length penalty."""
    total = 0.0
    for ours, theirs, norm, their_norm in zip(
        answer.weights, reference.weights, answer.norms, reference.norms, strict=True
    ):
        # In the answer's order: a set's differs from process to process, and with it the last digit.
        shared = sum(min(weight, theirs[gram]) * theirs[gram] for gram, weight in ours.items() if gram in theirs)
        total += shared / (norm * their_norm) if shared else 0.0
    return total / _LONGEST * math.exp(-((answer.length - reference.length) ** 2) / (2 * _SIGMA**2))
