"""Two biases that fine-tuning leaves: naming the task's labels where they are not asked for, and favouring a letter."""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

_TOKEN = re.compile(r"\d+(?:[.,]\d+)+|\w+(?:-\w+)*|[^\w\s]")
_AROUND_A_LETTER = "().: \t\n"


def names_label(text: str, labels: Collection[str], item_texts: Collection[str]) -> bool:
    """Whether a free answer names a label of the fine-tuning task that is not in the item's texts.

    A label counts where it stands in the answer as a whole phrase, in any case: "dress" is in "A red dress." but not in
    "dresses" or "dress-up". A label of one letter counts only as the whole answer, as in "(B).".

    Args:
        text: what the model wrote.
        labels: the labels of the task; a frozenset is fastest.
        item_texts: options, letters and references of the item. A label that is a phrase of one of them is not counted.
    """
    by_first = _by_first_token(frozenset(labels))
    spoken, whole = _phrase(text), f" {text.strip(_AROUND_A_LETTER).casefold()} "
    named = [
        label
        for token in set(spoken.split())
        for label in by_first.get(token, ())
        if (label in spoken if len(label) > len(" x ") else label == whole)
    ]
    if not named:
        return False
    item_phrases = [_phrase(item_text) for item_text in item_texts]
    return any(not any(label in phrase for phrase in item_phrases) for label in named)


def recall_deviation(parsed: Sequence[str | None], targets: Sequence[str]) -> float | None:
    """Option-letter bias: RStd of Zheng et al. 2023 (arXiv 2309.03882).

    It is the population standard deviation of the recall over the letters. The recall of a letter is the share of
    correct answers among the items with this right letter; an unparsed answer is not correct. Unlike counts of answers,
    it does not mistake uneven targets for bias. A share, not per cent.

    Returns:
        None with fewer than two letters. A letter that is never right has no recall and is left out.
    """
    items = Counter(targets)
    recalled = Counter(target for answer, target in zip(parsed, targets, strict=True) if answer == target)
    return statistics.pstdev(recalled[letter] / n for letter, n in items.items()) if len(items) > 1 else None


@lru_cache(maxsize=64)
def _by_first_token(labels: frozenset[str]) -> Mapping[str, Sequence[str]]:
    """Labels as phrases, by first token, so that an answer is compared only with labels that it could name."""
    by_first: dict[str, list[str]] = defaultdict(list)
    for phrase in map(_phrase, labels):
        for token in phrase.split()[:1]:
            by_first[token].append(phrase)
    return dict(by_first)


def _phrase(text: str) -> str:
    """Tokens between single spaces: a phrase is part of another exactly if its text is."""
    return f" {' '.join(_TOKEN.findall(text.casefold()))} "
