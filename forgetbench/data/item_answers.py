"""Options and answers of items: which option is right, however a file says so.

A file names the right option by its text, its letter or its place; `2` among the options 1, 2, 3, 4 may be both. Where
readings differ, that one holds by which all items of the split can be read, the text before the others; where there is
none, such items are refused, and the manifest's `answer_is` decides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real

from forgetbench.core.records import LETTERS, AnswerKind, Metric
from forgetbench.data.conversations import Row
from forgetbench.data.item_texts import as_seen, shows_nothing
from forgetbench.data.manifest import AnswerIs, Manifest

_ORDER = (AnswerIs.text, AnswerIs.letter, AnswerIs.index_from_0)
"""What is tried where the manifest says nothing; places from 1 cannot be told from places from 0."""
_MOST_DIGITS = 18
"""Of a place; Python refuses to read thousands of digits."""
_DIGITS = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


class ItemAnswers:
    """Reads the options and answers of a split's items."""

    def __init__(self, manifest: Manifest) -> None:
        """Say how items are answered."""
        self._manifest = manifest
        has_adapter = manifest.source is not None and manifest.source.adapter is not None
        self._set = manifest.answer_is
        if manifest.answer is AnswerKind.letter and has_adapter:
            self._set = AnswerIs.index_from_0  # what adapters give
        elif manifest.answer is AnswerKind.option and not self._set:
            self._set = AnswerIs.text
        self._common = set(_ORDER)
        self._has_place_past_end = False

    def observe(self, row: Row) -> None:
        """Take note of a row of the split, whether it is wanted or not: how it can be read."""
        if self._set or self._manifest.answer is AnswerKind.text:
            return
        given = row.get("options") or self._manifest.options
        if not isinstance(given, list) or "answer" not in row:
            return
        if found := _places(row["answer"], given, _ORDER):
            self._common &= found.keys()
        elif _whole(row["answer"]) == len(given):
            self._has_place_past_end = True

    def agreed(self) -> AnswerIs | None:
        """The reading that all rows noted so far have in common, if there is one."""
        return next((one for one in _ORDER if one in self._common), None)

    def readings(self, row: Row, options: Sequence[str]) -> list[AnswerIs]:
        """How the answer of a lettered or fixed-option item can be read, one reading for each option it may mean.

        Args:
            row: the item.
            options: as `options` reads them.

        Raises:
            ValueError: in no way.
        """
        value, ways = row["answer"], (self._set,) if self._set else _ORDER
        if value is None:
            raise ValueError("`answer` is null")
        found = _places(value, row.get("options") or self._manifest.options, ways)
        if not found:
            raise ValueError(self._no_reading(value, options))
        if list(found) == [AnswerIs.index_from_0] and self._has_place_past_end and not self._set:
            raise ValueError(
                f"answer {value!r} is a place counted from 0, but other items of the split count from 1; "
                "write `answer_is: index_from_1` or `index_from_0`"
            )
        return list({place: way for way, place in reversed(found.items())}.values())

    def _no_reading(self, value: object, options: Sequence[str]) -> str:
        if self._manifest.answer is AnswerKind.option and self._set is AnswerIs.text:
            return f"answer '{value}' is not one of the options {tuple(options)}"
        if self._set:
            return f"answer {value!r} is no {self._set} of the options {tuple(options)} (`answer_is: {self._set}`)"
        if (place := _whole(value)) is not None and not (isinstance(value, str) and _has_number(options)):
            counted = " If places are counted from 1, write `answer_is: index_from_1`" if place == len(options) else ""
            return f"answer {value} is not an index, from 0, of {len(options)} options.{counted}".rstrip(".")
        return f"answer '{value}' is no letter, index or text of the options {tuple(options)}"

    def options(self, row: Row) -> tuple[str, ...]:
        """The texts of an item's options.

        Raises:
            ValueError: they are no options among which one could be right.
        """
        manifest, given = self._manifest, row.get("options") or self._manifest.options
        if not isinstance(given, list):
            raise ValueError(f"`options` must be a list, not {given!r}")
        if None in given:
            raise ValueError(f"an option is empty: {given}")
        if odd := next((one for one in given if isinstance(one, list | dict | bytes)), None):
            raise ValueError(f"an option must be a text or a number, not {odd!r}")
        options = tuple(map(str, given))
        if any(map(shows_nothing, options)):
            raise ValueError(f"an option is empty: {given}")
        seen = [as_seen(option) for option in options]
        if twice := next((one for one in seen if seen.count(one) > 1), None):
            raise ValueError(f"two options read '{twice}', so only one could be right")
        if manifest.answer is not AnswerKind.text and len(options) < 2:
            raise ValueError(f"answer kind '{manifest.answer}' needs `options`, two or more")
        if len(options) > len(LETTERS) and (manifest.answer is AnswerKind.letter or "{options}" in manifest.prompt):
            raise ValueError(f"{len(options)} options, but only {len(LETTERS)} letters")
        return options

    def answer(self, row: Row, options: tuple[str, ...], reading: AnswerIs | None) -> tuple[str, tuple[str, ...]]:
        """What a model should answer, and everything that is accepted.

        Args:
            row: the item.
            options: as `options` reads them.
            reading: one of `readings`; None for an open answer.

        Raises:
            ValueError: there is no answer.
        """
        if reading is None:
            return _open(row["answer"], self._manifest.metric)
        place = _places(row["answer"], row.get("options") or self._manifest.options, (reading,))[reading]
        right = LETTERS[place] if self._manifest.answer is AnswerKind.letter else options[place]
        return right, (right,)


def _open(value: object, metric: Metric) -> tuple[str, tuple[str, ...]]:
    if value is None:
        raise ValueError("`answer` is null")
    given = value if isinstance(value, list) else [value]
    references = tuple(str(one) for one in given if isinstance(one, str | int | float | Decimal))
    # One of several people may have answered nothing: VQA's metric counts them.
    if (
        not references
        or len(references) < len(given)
        or not references[0].strip()
        or (metric is not Metric.vqa_accuracy and not all(text.strip() for text in references))
    ):
        raise ValueError(f"`answer` must be a text or a list of accepted texts, not {value!r}")
    return references[0], references


def _places(value: object, given: Sequence[object], ways: Sequence[AnswerIs]) -> dict[AnswerIs, int]:
    """Reading -> the place of the option that it makes right, of the readings that make one."""
    found = {way: _place(value, given, way, alone=len(ways) == 1) for way in ways}
    return {way: place for way, place in found.items() if place is not None and 0 <= place < len(given)}


def _place(value: object, given: Sequence[object], way: AnswerIs, alone: bool) -> int | None:
    if way is AnswerIs.text:
        return _place_of(value, given)
    if way is AnswerIs.letter:
        letter = value.strip().upper() if isinstance(value, str) else ""
        return LETTERS.find(letter) if len(letter) == 1 else None
    # A number in a text, among options that are numbers, is one of them or wrong, unless the manifest says otherwise.
    if isinstance(value, str) and not alone and _has_number(given):
        return None
    place = _whole(value)
    return None if place is None else place - (way is AnswerIs.index_from_1)


def _place_of(value: object, given: Sequence[object]) -> int | None:
    """The option that an answer repeats: to the letter, or as it is seen, or as the same number (2 and 2.0)."""
    texts = list(map(str, given))
    if str(value) in texts:
        return texts.index(str(value))
    seen, number = as_seen(str(value)), _number(value)
    same = [place for place, text in enumerate(texts) if as_seen(text) == seen]
    if not same and number is not None:
        same = [place for place, option in enumerate(given) if _number(option) == number]
    return same[0] if len(same) == 1 else None


def _number(value: object) -> float | None:
    """The number that a value is, or that a text writes in digits; None of others."""
    if isinstance(value, str) and not _DIGITS.fullmatch(value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, str | Real | Decimal):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None  # of two numbers beyond floats none equals the other


def _whole(value: object) -> int | None:
    """A whole number given as one, as a float (a table's way where cells are empty) or in a text; None of others."""
    if isinstance(value, str):
        return int(value) if value.strip().isdecimal() and len(value.strip()) <= _MOST_DIGITS else None
    if isinstance(value, float | Decimal):
        return int(value) if _number(value) is not None and value == int(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _has_number(options: Sequence[object]) -> bool:
    return any(_number(option) is not None for option in options)


def class_option(manifest: Manifest, row: Row, answer: str, options: tuple[str, ...]) -> int | None:
    """The place of the option that is the class name, as a probe's items say.

    Raises:
        ValueError: they do not, or that option is the right one.
    """
    value = row.get("class_option")
    if value is None:
        if manifest.probe:
            raise ValueError("a probe's items need `class_option`, the index of the option that is the class name")
        return None
    if not isinstance(value, int) or not 0 <= value < len(options):
        raise ValueError(f"class_option {value!r} is not an index of {len(options)} options")
    if answer in (LETTERS[value], options[value]):
        raise ValueError(f"class_option {value} is the right answer; the class name must be a wrong option")
    return value
