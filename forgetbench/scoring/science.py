"""Scores of science questions as MLLM-CL's Sci and CoIN's ScienceQA give them: letters, lists and texts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from forgetbench.scoring.containment import REFUSAL, contains_match

_LIST_QUESTION = "Which states"
"""Text in MapQA's questions that ask for a list; the case matters."""
_ALONE = re.compile(r"\b\w\b")


def letter_match(text: str, references: Iterable[str]) -> bool:
    """Whether the first word of one character is any reference's: CoIN's ScienceQA (eval_science_qa.py).

    "B", "b", "B. two", "(B)" and "The answer is B." are B. As there, an article is taken for a letter ("A dog or B" is
    A), and so is what an apostrophe cuts off ("It's B" is S).
    """
    letter = _letter(text)
    return letter is not None and any(letter == _letter(reference) for reference in references)


def science_match(text: str, references: Iterable[str], question: str) -> float:
    """Score from 0 to 1 of an answer in MLLM-CL's Sci (eval_sci.py), the best over the references.

    - A reference of one letter: 1 if the text is this letter, without the blanks and full stops around it. The public
      script strips neither, so there "A." and "A " are wrong.
    - A question that asks "Which states": the share of the listed states that the text lists too, between commas. There
      the blank after a comma belongs to the state, so that a list in another order loses its first; here it does not.
      Naming too many costs nothing.
    - Any other: 1 if the reference stands in the text, in any case.

    A text with "Unanswerable" is wrong. In all three, case does not count.
    """
    if REFUSAL in text:
        return 0.0
    return max((_score(text, reference, question) for reference in references), default=0.0)


def _score(text: str, reference: str, question: str) -> float:
    if len(reference.strip()) == 1 and reference.strip().isalpha():
        return float(text.strip(" \n\t.").lower() == reference.strip().lower())
    if _LIST_QUESTION in question:
        right = _listed(reference)
        return len(right & _listed(text)) / len(right) if right else 0.0
    return float(contains_match(text, [reference]))


def _listed(text: str) -> set[str]:
    return {state for part in text.lower().split(",") if (state := part.strip(" \n\t."))}


def _letter(text: str) -> str | None:
    match = _ALONE.search(text)
    return match.group().upper() if match else None
