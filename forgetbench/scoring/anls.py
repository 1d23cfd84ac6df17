"""Normalised Levenshtein similarity of one answer: its mean is ANLS (Biten et al. 2019, the metric of DocVQA)."""

from __future__ import annotations

from collections.abc import Iterable

from rapidfuzz.distance import Levenshtein


def anls(text: str, references: Iterable[str], threshold: float = 0.5) -> float:
    """Highest similarity 1 - NL over the references; 0 where NL, edits per character of the longer, is not below 0.5.

    Case and runs of whitespace do not count. Two details of the public scripts are not followed, for the paper's sake:
    they keep a similarity of exactly one half, and they divide by lengths from before the whitespace was collapsed.
    """
    answer = _collapsed(text)
    return max((_similarity(answer, _collapsed(reference), threshold) for reference in references), default=0.0)


def _similarity(first: str, second: str, threshold: float) -> float:
    normalised = Levenshtein.normalized_distance(first, second)
    return 1 - normalised if normalised < threshold else 0.0


def _collapsed(text: str) -> str:
    return " ".join(text.lower().split())
