"""Exact match after the answer normalisation of the official VQA evaluation (Antol et al. 2015).

The rules are those of https://visualqa.org/evaluation.html and its published script, with the
punctuation marks of its EvalAI version (the first script lacked "-", "!" and braces).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from forgetbench.scoring.folding import plain

_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_FULL_FORMS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll ma'am
    mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't
    she'd've should've shouldn't shouldn't've somebody'd somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's
    there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't
    we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd
    who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all
    y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()  # noqa: SIM905 - a list of quoted words would fill two screens
_CONTRACTIONS = {
    form[: mark.start()] + form[mark.end() :]: form for form in _FULL_FORMS for mark in re.finditer("'", form)
}
"""Each form with one apostrophe missing, to the form: the official table's rule."""


def normalise(text: str) -> str:
    """Lower-case, without articles and punctuation, number words as digits, contractions whole.

    As in the official script, punctuation beside a space is dropped and elsewhere becomes a
    space, except that all of it is dropped from a text with a digit comma ("1,000").
    """
    source = " ".join(text.split())
    stripped = source
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in source or f" {mark}" in source
        drop = beside_space or _DIGIT_COMMA.search(source)
        stripped = stripped.replace(mark, "" if drop else " ")
    words = (_NUMBERS.get(word, word) for word in _PERIOD.sub("", stripped).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def exact_match(text: str, references: Iterable[str]) -> bool:
    """Whether `text` equals any reference once both are normalised.

    A reply of nothing but articles or punctuation is no answer, unless it is the reference itself.
    """
    normal = normalise(text)
    literal = text.strip().lower()
    return bool(literal) and any(
        literal == reference.strip().lower() or (normal != "" and normal == normalise(reference))
        for reference in references
    )


def open_match(text: str, references: Iterable[str]) -> bool:
    """An exact match once Unicode forms, quotes, dashes and blanks are folded: an en dash is a hyphen."""
    return exact_match(plain(text), map(plain, references))
