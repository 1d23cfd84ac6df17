"""Adapters of multiple-choice layouts: options in a list, in a string, in columns A to D, or in the question's text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from forgetbench.core.records import LETTERS

Row = dict[str, Any]

MIXED = ("OCRVQA", "GQA", "OKVQA", "AOKVQA", "VQAv2", "TextVQA", "VizWiz")
"""Sources of VMCBench that the usual auxiliary sets (OCR-VQA, LLaVA-665K) are made from, or share pictures with."""
_LETTERED = re.compile(r"^A\. .*(?:\n[B-Z]\. .*)+", re.MULTILINE)
_LETTER = re.compile(r"^[A-Z]\.", re.MULTILINE)
_NUMBERED = re.compile(r"<image (\d+)>")


def lettered_text(rows: Iterator[Row]) -> Iterator[Row]:
    """A `question` that ends in its lettered options, and a letter as `answer`.

    ImageWikiQA's file, and the ready-made sets of arXiv 2603.14493. An instruction after the options is dropped: the
    manifest's prompt gives it.
    """
    for row in rows:
        text = str(row["question"])
        match = _LETTERED.search(text)
        if not match:
            raise ValueError(f"no lines 'A. ..', 'B. ..' in the question {text!r}")
        letters, options = zip(*(line.split(". ", 1) for line in match[0].split("\n")), strict=True)
        if "".join(letters) != LETTERS[: len(letters)] or _LETTER.search(text, match.end()):
            raise ValueError(f"options are not lettered line by line in the question {text!r}")
        yield _item(row, text[: match.start()].strip(), options, _answer_index(row["answer"]))


def named_text(rows: Iterator[Row]) -> Iterator[Row]:
    """As `lettered_text`, where the right option is what the picture shows: it becomes the item's `class_name`."""
    for row in lettered_text(rows):
        yield row | {"class_name": row["options"][row["answer"]]}


def imagewikiqa(rows: Iterator[Row]) -> Iterator[Row]:
    """ImageWikiQA as its authors publish it: {image, text, label, classname}; the question is all of `text`."""
    items = (row | {"question": row["text"], "answer": row["label"], "class_name": row["classname"]} for row in rows)
    return lettered_text(items)


def cell_naming(rows: Iterator[Row]) -> Iterator[Row]:
    """BSCCM as questions: as `lettered_text`, with the `cell` that up to 23 pictures of different light show."""
    for row in lettered_text(rows):
        yield row | {"cell": _number_in_name(row["image"], r"cell_(\d+)")}


def instrument_naming(rows: Iterator[Row]) -> Iterator[Row]:
    """PitVis as questions: as `lettered_text`, with the `video` that a frame is from."""
    for row in lettered_text(rows):
        yield row | {"video": _number_in_name(row["image"], r"video_(\d+)")}


def vmcbench(rows: Iterator[Row]) -> Iterator[Row]:
    """VMCBench: options in the columns A to D."""
    for row in rows:
        yield _item(row, row["question"], *_column_options(row))


def vmcbench_unmixed(rows: Iterator[Row]) -> Iterator[Row]:
    """VMCBench without the items whose source is in, or close to, the usual auxiliary sets (`MIXED`)."""
    mixed = {name.casefold() for name in MIXED}
    return vmcbench(row for row in rows if str(row["category"]).replace("-", "").casefold() not in mixed)


def mmbench(rows: Iterator[Row]) -> Iterator[Row]:
    """MMBench: two to four options in the columns A to D, a hint before the question.

    An item is repeated with its options in another order and a million added to its `index`; its copies share `base`.
    """
    for row in rows:
        hint = "" if _is_absent(row.get("hint")) else f"{row['hint']} "
        item = _item(row, f"{hint}{row['question']}", *_column_options(row))
        yield item | {"id": str(row["index"]), "base": int(row["index"]) % 1_000_000}


def mmmu_choice(rows: Iterator[Row]) -> Iterator[Row]:
    """MMMU's multiple-choice questions: `options` is a string that holds a list; up to seven pictures."""
    for row in _mmmu(rows, "multiple-choice"):
        yield _item(row, row["question"], row["options"], _answer_index(row["answer"]))


def mmmu_open(rows: Iterator[Row]) -> Iterator[Row]:
    """MMMU's open questions: `answer` is a text, or a string that holds a list of accepted texts."""
    for row in _mmmu(rows, "open"):
        answer = str(row["answer"])
        accepted: object = answer
        with suppress(ValueError):  # an interval, [0, 1), begins like a list
            accepted = _parse_list(answer)
        yield row | {"options": None, "answer": accepted}


def ai2d(rows: Iterator[Row]) -> Iterator[Row]:
    """AI2D: `answer` is an index in a string, though options may be numbers too."""
    for row in rows:
        yield _item(row, row["question"], row["options"], int(row["answer"]))


def scienceqa(rows: Iterator[Row]) -> Iterator[Row]:
    """ScienceQA: two to five `choices`, an index, and a hint as context."""
    for row in rows:
        hint = "" if _is_absent(row.get("hint")) else f"Context: {row['hint']}\n"
        yield _item(row, f"{hint}{row['question']}", row["choices"], int(row["answer"]))


def iconqa_choice(rows: Iterator[Row]) -> Iterator[Row]:
    """IconQA's questions with text choices: `choices` is a string with commas between the choices.

    Items with a comma inside a choice are left out: then the answer is none of the choices, or a choice is empty.
    """
    for row in rows:
        if row["ques_type"] == "choose_txt":
            options = [option.strip() for option in str(row["choices"]).split(",")]
            answer = str(row["answer"]).strip()
            if answer in options and all(options):
                yield _item(row, row["question"], options, options.index(answer))


def iconqa_blank(rows: Iterator[Row]) -> Iterator[Row]:
    """IconQA's questions with a blank to fill."""
    return (row for row in rows if row["ques_type"] == "fill_in_blank")


def _mmmu(rows: Iterator[Row], kind: str) -> Iterator[Row]:
    """The questions of a kind, with the pictures that question and options name; others belong to the explanation.

    If some pictures are not named, the marks are renumbered. Without any mark, all pictures are kept.
    """
    for row in rows:
        if row["question_type"] != kind:
            continue
        texts = [str(row["question"]), *map(str, _parse_list(row["options"]))]
        named = sorted({int(number) for text in texts for number in _NUMBERED.findall(text)})
        pictures = [row.get(f"image_{number}") for number in named or range(1, 8)]
        if named and None in pictures:
            raise ValueError(f"its texts name the pictures {named}, and not all are there")
        question, *options = (_renumbered(text, named) for text in texts)
        shown = [picture for picture in pictures if picture is not None]
        yield row | {"image": shown, "question": question, "options": options}


def _renumbered(text: str, named: Sequence[int]) -> str:
    return _NUMBERED.sub(lambda mark: f"<image {named.index(int(mark[1])) + 1}>", text)


def _item(row: Row, question: str, options: Sequence[object], right: int) -> Row:
    """Make an item; repeated options (1,000 ImageNet classes have 998 names) are merged."""
    texts = [str(option).strip() for option in options]
    if not 0 <= right < len(texts):
        raise ValueError(f"answer {row.get('answer')!r} is outside the options {texts}")
    distinct = list(dict.fromkeys(texts))
    return row | {"question": question, "options": distinct, "answer": distinct.index(texts[right])}


def _answer_index(answer: object) -> int:
    """Index of an answer given as a letter, perhaps with a full stop, or as an index."""
    text = str(answer).strip().rstrip(".")
    if text.isdecimal():
        return int(text)
    if len(text) != 1 or text.upper() not in LETTERS:
        raise ValueError(f"answer {answer!r} is no letter")
    return LETTERS.index(text.upper())


def _column_options(row: Row) -> tuple[list[str], int]:
    """The non-empty options in the columns A to D, and the place of the right option."""
    options = {letter: str(row[letter]) for letter in "ABCD" if not _is_absent(row.get(letter))}
    right = str(row["answer"]).strip()
    if right not in options:
        raise ValueError(f"answer {right!r} is none of the options' letters {', '.join(options)}")
    return list(options.values()), list(options).index(right)


def _is_absent(value: object) -> bool:
    """Whether a cell is empty; tables that went through pandas say `nan`."""
    return value is None or str(value).strip().casefold() in ("", "nan")


def _parse_list(text: str) -> list[object]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{text!r} holds no list") from error
    if not isinstance(value, list):
        raise ValueError(f"{text!r} holds no list")
    return value


def _number_in_name(image: object, pattern: str) -> str:
    match = re.search(pattern, str(image))
    if not match:
        raise ValueError(f"the picture's name {image!r} has no {pattern}")
    return match[1]
