"""Read the options and answers of items: which option is right.

A file names the right option by its text, its letter or its place. These readings may differ: `2` among the options
1, 2, 3, 4 may be a text or a place. Then the first reading by which all items of the split can be read is used, the
text before the others. If there is none, the ambiguous items are refused, and the manifest must set `answer_is`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real

from forgetbench.core.records import LETTERS, AnswerKind, Metric
from forgetbench.data.conversations import Row
from forgetbench.data.item_texts import is_invisible, visible_text
from forgetbench.data.manifest import AnswerIs, Manifest

_ORDER = (AnswerIs.text, AnswerIs.letter, AnswerIs.index_from_0)
"""Readings tried if the manifest sets none; places from 1 cannot be told from places from 0."""
_MOST_DIGITS = 18
"""Longest number that is read as a place; Python refuses to parse thousands of digits."""
_DIGITS = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


class ItemAnswers:
    """Reads the options and answers of a split's items."""

    def __init__(self, manifest: Manifest) -> None:
        """Take the answer settings of a manifest."""
        self._manifest = manifest
        has_adapter = manifest.source is not None and manifest.source.adapter is not None
        self._fixed_reading = manifest.answer_is
        if manifest.answer is AnswerKind.letter and has_adapter:
            self._fixed_reading = AnswerIs.index_from_0  # adapters return indices
        elif manifest.answer is AnswerKind.option and not self._fixed_reading:
            self._fixed_reading = AnswerIs.text
        self._common_readings = set(_ORDER)
        self._has_place_past_end = False

    def observe(self, row: Row) -> None:
        """Record by which readings a row of the split can be read, whether or not the row is used."""
        if self._fixed_reading or self._manifest.answer is AnswerKind.text:
            return
        options = row.get("options") or self._manifest.options
        if not isinstance(options, list) or "answer" not in row:
            return
        if places := _places_by_reading(row["answer"], options, _ORDER):
            self._common_readings &= places.keys()
        elif _integer(row["answer"]) == len(options):
            self._has_place_past_end = True

    def agreed(self) -> AnswerIs | None:
        """The reading that all observed rows have in common, if there is one."""
        return next((reading for reading in _ORDER if reading in self._common_readings), None)

    def readings(self, row: Row, options: Sequence[str]) -> list[AnswerIs]:
        """The readings of the answer to a lettered or fixed-option item, one for each option it may mean.

        Args:
            row: the item.
            options: as `options` returns them.

        Raises:
            ValueError: the answer fits no reading.
        """
        value, readings = row["answer"], (self._fixed_reading,) if self._fixed_reading else _ORDER
        if value is None:
            raise ValueError("`answer` is null")
        places = _places_by_reading(value, row.get("options") or self._manifest.options, readings)
        if not places:
            raise ValueError(self._no_reading_message(value, options))
        if list(places) == [AnswerIs.index_from_0] and self._has_place_past_end and not self._fixed_reading:
            raise ValueError(
                f"answer {value!r} is a place counted from 0, but other items of the split count from 1; "
                "write `answer_is: index_from_1` or `index_from_0`"
            )
        return list({place: reading for reading, place in reversed(places.items())}.values())

    def _no_reading_message(self, value: object, options: Sequence[str]) -> str:
        if self._manifest.answer is AnswerKind.option and self._fixed_reading is AnswerIs.text:
            return f"answer '{value}' is not one of the options {tuple(options)}"
        if self._fixed_reading:
            reading = self._fixed_reading
            return f"answer {value!r} is no {reading} of the options {tuple(options)} (`answer_is: {reading}`)"
        if (place := _integer(value)) is not None and not (isinstance(value, str) and _has_number(options)):
            counted = " If places are counted from 1, write `answer_is: index_from_1`" if place == len(options) else ""
            return f"answer {value} is not an index, from 0, of {len(options)} options.{counted}".rstrip(".")
        return f"answer '{value}' is no letter, index or text of the options {tuple(options)}"

    def options(self, row: Row) -> tuple[str, ...]:
        """The texts of an item's options.

        Raises:
            ValueError: the options are not usable, for example empty or repeated.
        """
        manifest, raw_options = self._manifest, row.get("options") or self._manifest.options
        if not isinstance(raw_options, list):
            raise ValueError(f"`options` must be a list, not {raw_options!r}")
        if None in raw_options:
            raise ValueError(f"an option is empty: {raw_options}")
        if invalid := next((option for option in raw_options if isinstance(option, list | dict | bytes)), None):
            raise ValueError(f"an option must be a text or a number, not {invalid!r}")
        options = tuple(map(str, raw_options))
        if any(map(is_invisible, options)):
            raise ValueError(f"an option is empty: {raw_options}")
        visible = [visible_text(option) for option in options]
        if duplicate := next((text for text in visible if visible.count(text) > 1), None):
            raise ValueError(f"two options read '{duplicate}', so only one could be right")
        if manifest.answer is not AnswerKind.text and len(options) < 2:
            raise ValueError(f"answer kind '{manifest.answer}' needs `options`, two or more")
        if len(options) > len(LETTERS) and (manifest.answer is AnswerKind.letter or "{options}" in manifest.prompt):
            raise ValueError(f"{len(options)} options, but only {len(LETTERS)} letters")
        return options

    def answer(self, row: Row, options: tuple[str, ...], reading: AnswerIs | None) -> tuple[str, tuple[str, ...]]:
        """The expected answer, and all accepted answers.

        Args:
            row: the item.
            options: as `options` returns them.
            reading: one of `readings`; None for an open answer.

        Raises:
            ValueError: there is no answer.
        """
        if reading is None:
            return _open_answer(row["answer"], self._manifest.metric)
        place = _places_by_reading(row["answer"], row.get("options") or self._manifest.options, (reading,))[reading]
        right = LETTERS[place] if self._manifest.answer is AnswerKind.letter else options[place]
        return right, (right,)


def _open_answer(value: object, metric: Metric) -> tuple[str, tuple[str, ...]]:
    if value is None:
        raise ValueError("`answer` is null")
    answers = value if isinstance(value, list) else [value]
    references = tuple(str(answer) for answer in answers if isinstance(answer, str | int | float | Decimal))
    # An annotator may have given an empty answer; VQA's metric counts empty answers.
    if (
        not references
        or len(references) < len(answers)
        or not references[0].strip()
        or (metric is not Metric.vqa_accuracy and not all(text.strip() for text in references))
    ):
        raise ValueError(f"`answer` must be a text or a list of accepted texts, not {value!r}")
    return references[0], references


def _places_by_reading(value: object, options: Sequence[object], readings: Sequence[AnswerIs]) -> dict[AnswerIs, int]:
    """Reading -> place of the option that the value names; readings by which it names none are left out."""
    places = {
        reading: _option_place(value, options, reading, is_only_reading=len(readings) == 1) for reading in readings
    }
    return {reading: place for reading, place in places.items() if place is not None and 0 <= place < len(options)}


def _option_place(value: object, options: Sequence[object], reading: AnswerIs, is_only_reading: bool) -> int | None:
    if reading is AnswerIs.text:
        return _place_of_text(value, options)
    if reading is AnswerIs.letter:
        letter = value.strip().upper() if isinstance(value, str) else ""
        return LETTERS.find(letter) if len(letter) == 1 else None
    # If options are numbers, a number in a text is one of the options, not a place, unless the manifest says otherwise.
    if isinstance(value, str) and not is_only_reading and _has_number(options):
        return None
    place = _integer(value)
    return None if place is None else place - (reading is AnswerIs.index_from_1)


def _place_of_text(value: object, options: Sequence[object]) -> int | None:
    """Place of the option that equals the answer: exactly, in its visible text, or as a number (2 and 2.0)."""
    texts = list(map(str, options))
    if str(value) in texts:
        return texts.index(str(value))
    visible, number = visible_text(str(value)), _number(value)
    matches = [place for place, text in enumerate(texts) if visible_text(text) == visible]
    if not matches and number is not None:
        matches = [place for place, option in enumerate(options) if _number(option) == number]
    return matches[0] if len(matches) == 1 else None


def _number(value: object) -> float | None:
    """A number, or a text in digits, as a float; None for other values."""
    if isinstance(value, str) and not _DIGITS.fullmatch(value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, str | Real | Decimal):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None  # numbers too large for a float would all be equal


def _integer(value: object) -> int | None:
    """An integer, given as int, float (tables with empty cells) or text; None for other values."""
    if isinstance(value, str):
        return int(value) if value.strip().isdecimal() and len(value.strip()) <= _MOST_DIGITS else None
    if isinstance(value, float | Decimal):
        return int(value) if _number(value) is not None and value == int(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _has_number(options: Sequence[object]) -> bool:
    return any(_number(option) is not None for option in options)


def class_option(manifest: Manifest, row: Row, answer: str, options: tuple[str, ...]) -> int | None:
    """Place of the option that is the class name, from a probe item's `class_option`.

    Raises:
        ValueError: it is missing or invalid, or that option is the right answer.
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
