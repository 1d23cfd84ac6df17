"""Lenient matches, for comparison with published numbers: the right answer somewhere in what was written.

They flatter long answers: one that names every option is right. `exact` is the stricter rule.
"""

from __future__ import annotations

from collections.abc import Iterable

REFUSAL = "Unanswerable"
"""Text that models are trained to write if they cannot answer; the case matters. The benchmarks count it as wrong."""


def contains_match(text: str, references: Iterable[str]) -> bool:
    """Whether any reference stands in `text`, in any case: MLLM-CL's Med (eval_pvqa.py).

    As there, parts of words count ("no" is in "normal" and in "cannot"), and a text with "Unanswerable" is wrong.
    """
    return REFUSAL not in text and any(reference.strip().lower() in text.lower() for reference in references)


def lenient_match(text: str, references: Iterable[str]) -> bool:
    """Whether any reference stands in `text` at an end of a word: MLLM-CL's RS and AD (eval_ai2d.py).

    The rules are those of the public script, in any case. A reference of several words may stand anywhere. One word,
    without its full stops, counts at the start of a word that is not the first, or before a blank, a full stop or a
    comma. In a text of one word it may stand anywhere, so that "no" is in "cannot" but not in "cannot say"; and it is
    in "I do not". A text with "Unanswerable" is wrong. A line break is a blank here.
    """
    written = " ".join(text.lower().split())
    return REFUSAL not in text and any(_contains(written, reference.strip().lower()) for reference in references)


def mutual_match(text: str, references: Iterable[str]) -> bool:
    """Whether `text` stands in any reference, or a reference in it, case included: CoIN's ImageNet (eval_ImagetNet.py).

    "cat" is right for "tiger cat", and so is "a". Unlike there, an empty text is wrong: it stands in every reference.
    """
    written = text.strip()
    return bool(written) and any(written in reference or reference in written for reference in references)


def _contains(written: str, reference: str) -> bool:
    if " " in reference:
        return reference in written
    word = reference.replace(".", "")
    if not word:
        return False
    if " " not in written:
        return word in written
    return f" {word}" in written or any(word + after in written for after in " .,")
