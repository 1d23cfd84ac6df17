"""Which texts of an evaluation set a training set holds: word for word, or in long runs of words.

Texts are compared as words: case, punctuation and blanks do not count, nor do the lettered options of a question.
A near copy has at least half of its runs of eight words in the training texts (runs of words as in Brown et al. 2020,
arXiv:2005.14165, appendix C, who take 13); a text of fewer words is compared whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from forgetbench.core.records import LETTERS, Sample, Speaker, Turn

Asked = tuple[str, str]
"""The words of a question and of its answer."""
RUN = 8
"""Words of a run."""
SHARE = 0.5
"""Of a text's runs that make it a near copy."""
_WORD = re.compile(r"\w+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd, of the golden ratio (Knuth, volume 3, section 6.4): the base of a polynomial hash modulo 2^64."""


@dataclass(frozen=True)
class TextOverlap:
    """Items of an evaluation set, by what a training set repeats of their text."""

    items: int
    questions: int
    """Those whose question is asked in training, word for word, of whatever picture."""
    answered: int
    """Those of them whose answer is the same too."""
    near: int
    """Near copies among the other questions."""


class Texts:
    """The questions and answers of a training set, made ready to be looked up."""

    def __init__(self, asked: Iterable[Asked]) -> None:
        """Read them; runs of words are held as 8 bytes each."""
        self.answered = frozenset(asked)
        self.questions = frozenset(question for question, _ in self.answered)
        runs = [_runs(question) for question in self.questions]
        self._runs = np.unique(np.concatenate(runs)) if runs else np.empty(0, np.uint64)

    def is_near(self, question: str) -> bool:
        """Whether at least half of a question's runs of words are among these."""
        if not len(self._runs):
            return False
        runs = _runs(question)
        places = np.searchsorted(self._runs, runs).clip(max=len(self._runs) - 1)
        return bool((self._runs[places] == runs).mean() >= SHARE)


def overlap(evaluated: Sequence[Asked], known: Texts) -> TextOverlap:
    """Count what a training set repeats of an evaluation set's questions and answers."""
    others = Counter(question for question, _ in evaluated if question not in known.questions)
    return TextOverlap(
        items=len(evaluated),
        questions=len(evaluated) - others.total(),
        answered=sum(one in known.answered for one in evaluated),
        near=sum(n for question, n in others.items() if known.is_near(question)),
    )


def asked(sample: Sample) -> list[Asked]:
    """The words of each question of an item and of its answer; the last is the one that is scored."""
    said = [_text(turn) for turn in sample.turns if turn.speaker is not Speaker.system]
    earlier = [(_words(question), _words(answer)) for question, answer in zip(said[:-1:2], said[1::2], strict=True)]
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
    """What is answered: the text of the right option, where options are lettered."""
    text = sample.answer if sample.target is None else sample.options[sample.target]
    return _words(text)


@lru_cache(maxsize=1_000_000)
def _runs(words: str) -> np.ndarray:
    """Hashes of a text's runs of eight words; of the whole text, if it is shorter."""
    hashed = np.array([hash(word) for word in words.split()], dtype=np.int64).astype(np.uint64)
    n_runs = max(len(hashed) - RUN, 0) + 1
    runs = np.full(n_runs, min(len(hashed), RUN), dtype=np.uint64)
    for place in range(min(len(hashed), RUN)):
        runs = runs * _MULTIPLIER + hashed[place : place + n_runs]
    return runs
