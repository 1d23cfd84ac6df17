"""Find texts of an evaluation set that occur in a training set, word for word or in long runs of words.

Texts are compared as words: case, punctuation, blanks and the lettered options of a question do not count. A near copy
has at least half of its runs of eight words in the training texts (Brown et al. 2020, arXiv:2005.14165, appendix C,
take runs of 13 words). A text of fewer than eight words is compared as a whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from forgetbench.core.records import LETTERS, Sample, Speaker, Turn

QuestionAnswer = tuple[str, str]
"""Words of a question, and words of its answer."""
RUN = 8
"""Number of words in a run."""
SHARE = 0.5
"""Share of a text's runs that must occur in training for it to be a near copy."""
_WORD = re.compile(r"\w+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd, of the golden ratio (Knuth, volume 3, section 6.4): the base of a polynomial hash modulo 2^64."""


@dataclass(frozen=True)
class TextOverlap:
    """Counts of an evaluation set's items whose text a training set repeats."""

    items: int
    questions: int
    """Items whose question occurs in training word for word, with any picture."""
    answered: int
    """Items whose question and answer both occur together in training."""
    near: int
    """Items whose question is only a near copy."""


class TextIndex:
    """An index of a training set's questions and answers."""

    def __init__(self, pairs: Iterable[QuestionAnswer]) -> None:
        """Index questions and answers; a run of words takes 8 bytes."""
        self.answered = frozenset(pairs)
        self.questions = frozenset(question for question, _ in self.answered)
        runs = [_runs(question) for question in self.questions]
        self._runs = np.unique(np.concatenate(runs)) if runs else np.empty(0, np.uint64)

    def is_near(self, question: str) -> bool:
        """Whether at least half of a question's runs of words are in the index."""
        if not len(self._runs):
            return False
        runs = _runs(question)
        places = np.searchsorted(self._runs, runs).clip(max=len(self._runs) - 1)
        return bool((self._runs[places] == runs).mean() >= SHARE)


def count_overlap(evaluated: Sequence[QuestionAnswer], known: TextIndex) -> TextOverlap:
    """Count an evaluation set's questions and answers that a training set repeats."""
    others = Counter(question for question, _ in evaluated if question not in known.questions)
    return TextOverlap(
        items=len(evaluated),
        questions=len(evaluated) - others.total(),
        answered=sum(pair in known.answered for pair in evaluated),
        near=sum(n for question, n in others.items() if known.is_near(question)),
    )


def questions_and_answers(sample: Sample) -> list[QuestionAnswer]:
    """The words of an item's questions and answers, in order; the last pair is scored."""
    texts = [_text(turn) for turn in sample.turns if turn.speaker is not Speaker.system]
    earlier = [(_words(question), _words(answer)) for question, answer in zip(texts[:-1:2], texts[1::2], strict=True)]
    return [*earlier, (question_words(sample), answer_words(sample))]


def question_words(sample: Sample) -> str:
    """The words of an item's last question, without its lettered options."""
    listed = {f"{letter}. {option}" for letter, option in zip(LETTERS, sample.options, strict=False)}
    return _words("\n".join(line for line in _text(sample.turns[-1]).splitlines() if line.strip() not in listed))


def _text(turn: Turn) -> str:
    return "".join(part for part in turn.parts if isinstance(part, str))


def _words(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


def answer_words(sample: Sample) -> str:
    """The words of an item's answer; for lettered options, of the right option's text."""
    text = sample.answer if sample.target is None else sample.options[sample.target]
    return _words(text)


@lru_cache(maxsize=1_000_000)
def _runs(words: str) -> np.ndarray:
    """Hashes of a text's runs of eight words, or of the whole text if it is shorter."""
    hashed = np.array([hash(word) for word in words.split()], dtype=np.int64).astype(np.uint64)
    n_runs = max(len(hashed) - RUN, 0) + 1
    runs = np.full(n_runs, min(len(hashed), RUN), dtype=np.uint64)
    for place in range(min(len(hashed), RUN)):
        runs = runs * _MULTIPLIER + hashed[place : place + n_runs]
    return runs
