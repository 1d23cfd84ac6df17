"""Multiple-choice layouts: options in a list, in a string, in columns A to D, or inside the question's text."""

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
        found = _LETTERED.search(text)
        if not found:
            raise ValueError(f"no lines 'A. ..', 'B. ..' in the question {text!r}")
        letters, options = zip(*(line.split(". ", 1) for line in found[0].split("\n")), strict=True)
        if "".join(letters) != LETTERS[: len(letters)] or _LETTER.search(text, found.end()):
            raise ValueError(f"options are not lettered line by line in the question {text!r}")
        yield _asked(row, text[: found.start()].strip(), options, _place(row["answer"]))


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
        yield row | {"cell": _number(row["image"], r"cell_(\d+)")}


def instrument_naming(rows: Iterator[Row]) -> Iterator[Row]:
    """PitVis as questions: as `lettered_text`, with the `video` that a frame is from."""
    for row in lettered_text(rows):
        yield row | {"video": _number(row["image"], r"video_(\d+)")}


def vmcbench(rows: Iterator[Row]) -> Iterator[Row]:
    """VMCBench: options in the columns A to D."""
    for row in rows:
        yield _asked(row, row["question"], *_columns(row))


def vmcbench_unmixed(rows: Iterator[Row]) -> Iterator[Row]:
    """VMCBench without the items whose source is in, or close to, the usual auxiliary sets (`MIXED`)."""
    mixed = {name.casefold() for name in MIXED}
    return vmcbench(row for row in rows if str(row["category"]).replace("-", "").casefold() not in mixed)


def mmbench(rows: Iterator[Row]) -> Iterator[Row]:
    """MMBench: two to four options in the columns A to D, a hint before the question.

    An item recurs with its options in another order and a million added to its `index`: all of them have one `base`.
    """
    for row in rows:
        hint = "" if _is_absent(row.get("hint")) else f"{row['hint']} "
        asked = _asked(row, f"{hint}{row['question']}", *_columns(row))
        yield asked | {"id": str(row["index"]), "base": int(row["index"]) % 1_000_000}


def mmmu_choice(rows: Iterator[Row]) -> Iterator[Row]:
    """MMMU's multiple-choice questions: `options` is a string that holds a list; up to seven pictures."""
    for row in _mmmu(rows, "multiple-choice"):
        yield _asked(row, row["question"], row["options"], _place(row["answer"]))


def mmmu_open(rows: Iterator[Row]) -> Iterator[Row]:
    """MMMU's open questions: `answer` is a text, or a string that holds a list of accepted ones."""
    for row in _mmmu(rows, "open"):
        answer = str(row["answer"])
        accepted: object = answer
        with suppress(ValueError):  # an interval, [0, 1), begins like a list
            accepted = _listed(answer)
        yield row | {"options": None, "answer": accepted}


def ai2d(rows: Iterator[Row]) -> Iterator[Row]:
    """AI2D: `answer` is an index in a string, though options may be numbers too."""
    for row in rows:
        yield _asked(row, row["question"], row["options"], int(row["answer"]))


def scienceqa(rows: Iterator[Row]) -> Iterator[Row]:
    """ScienceQA: two to five `choices`, an index, and a hint as context."""
    for row in rows:
        hint = "" if _is_absent(row.get("hint")) else f"Context: {row['hint']}\n"
        yield _asked(row, f"{hint}{row['question']}", row["choices"], int(row["answer"]))


def iconqa_choice(rows: Iterator[Row]) -> Iterator[Row]:
    """IconQA's questions with texts to choose from: `choices` is one string, its commas between them.

    Left out where a comma inside a choice shows: the answer is then none of them, or one of them is empty.
    """
    for row in rows:
        if row["ques_type"] == "choose_txt":
            options = [option.strip() for option in str(row["choices"]).split(",")]
            answer = str(row["answer"]).strip()
            if answer in options and all(options):
                yield _asked(row, row["question"], options, options.index(answer))


def iconqa_blank(rows: Iterator[Row]) -> Iterator[Row]:
    """IconQA's questions with a blank to fill."""
    return (row for row in rows if row["ques_type"] == "fill_in_blank")


def _mmmu(rows: Iterator[Row], kind: str) -> Iterator[Row]:
    """The questions of one kind, with the pictures that question and options name: others belong to the explanation.

    Where some are not named, the marks of the others are numbered anew. Without any mark, all pictures are kept.
    """
    for row in rows:
        if row["question_type"] != kind:
            continue
        texts = [str(row["question"]), *map(str, _listed(row["options"]))]
        named = sorted({int(number) for text in texts for number in _NUMBERED.findall(text)})
        pictures = [row.get(f"image_{number}") for number in named or range(1, 8)]
        if named and None in pictures:
            raise ValueError(f"its texts name the pictures {named}, and not all are there")
        question, *options = (_renumbered(text, named) for text in texts)
        held = [picture for picture in pictures if picture is not None]
        yield row | {"image": held, "question": question, "options": options}


def _renumbered(text: str, named: Sequence[int]) -> str:
    return _NUMBERED.sub(lambda mark: f"<image {named.index(int(mark[1])) + 1}>", text)


def _asked(row: Row, question: str, options: Sequence[object], right: int) -> Row:
    """The item; an option offered twice (1,000 ImageNet classes have 998 names) is offered once."""
    texts = [str(option).strip() for option in options]
    if not 0 <= right < len(texts):
        raise ValueError(f"answer {row.get('answer')!r} is outside the options {texts}")
    once = list(dict.fromkeys(texts))
    return row | {"question": question, "options": once, "answer": once.index(texts[right])}


def _place(answer: object) -> int:
    """Index of an answer given as a letter, perhaps with a full stop, or as an index."""
    text = str(answer).strip().rstrip(".")
    if text.isdecimal():
        return int(text)
    if len(text) != 1 or text.upper() not in LETTERS:
        raise ValueError(f"answer {answer!r} is no letter")
    return LETTERS.index(text.upper())


def _columns(row: Row) -> tuple[list[str], int]:
    """The options that there are in the columns A to D, and the place of the right one."""
    given = {letter: str(row[letter]) for letter in "ABCD" if not _is_absent(row.get(letter))}
    right = str(row["answer"]).strip()
    if right not in given:
        raise ValueError(f"answer {right!r} is none of the options' letters {', '.join(given)}")
    return list(given.values()), list(given).index(right)


def _is_absent(value: object) -> bool:
    """Whether a cell is empty; tables that went through pandas say `nan`."""
    return value is None or str(value).strip().casefold() in ("", "nan")


def _listed(text: str) -> list[object]:
    try:
        held = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{text!r} holds no list") from error
    if not isinstance(held, list):
        raise ValueError(f"{text!r} holds no list")
    return held


def _number(image: object, pattern: str) -> str:
    found = re.search(pattern, str(image))
    if not found:
        raise ValueError(f"the picture's name {image!r} has no {pattern}")
    return found[1]
