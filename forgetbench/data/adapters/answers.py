"""Adapters of layouts with open answers: several annotators, several questions per picture, a table of pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]


def annotators(rows: Iterator[Row]) -> Iterator[Row]:
    """VQA's `answers`, texts or {answer, ...}, the most frequent first, because the first is trained on.

    Empty answers go last; they still count as annotators.
    """
    for row in rows:
        texts = [answer["answer"] if isinstance(answer, dict) else answer for answer in row["answers"]]
        counted = Counter(text for text in texts if text.strip())
        empty = [""] * (len(texts) - counted.total())
        yield row | {"answer": [text for text, n in counted.most_common() for _ in range(n)] + empty}


def annotators_capitalised(rows: Iterator[Row]) -> Iterator[Row]:
    """TextVQA and VizWiz: as `annotators`, with the question capitalised as in lmms-eval.

    TextVQA's `ocr_tokens` are also given as one text, `ocr`.
    """
    for row in annotators(rows):
        tokens = {"ocr": ", ".join(row["ocr_tokens"])} if row.get("ocr_tokens") is not None else {}
        yield row | {"question": row["question"].capitalize()} | tokens


def ocrvqa(rows: Iterator[Row]) -> Iterator[Row]:
    """OCR-VQA: a row is a picture with parallel lists; each question that has an answer is an item."""
    for row in rows:
        pairs = zip(row["questions"], row["answers"], strict=True)
        shared = {name: value for name, value in row.items() if name not in ("questions", "answers")}
        yield from (
            shared | {"question": question, "answer": answer} for question, answer in pairs if answer and answer.strip()
        )


def gqa(rows: Iterator[Row]) -> Iterator[Row]:
    """GQA: rows of pictures {id, image} come first, then rows of questions, which name pictures by `imageId`."""
    pictures = dict[str, Any]()
    for row in rows:
        if "question" not in row:
            pictures[row["id"]] = row["image"]
        elif row["imageId"] in pictures:
            yield row | {"image": pictures[row["imageId"]]}
        else:
            raise ValueError(f"question {row['id']} is on picture {row['imageId']}, which no row before it holds")


def coco_karpathy(rows: Iterator[Row]) -> Iterator[Row]:
    """Karpathy's COCO: five `sentences`, and the picture's folder and name in COCO's 2014 archives."""
    for row in rows:
        yield row | {"image": f"{row['filepath']}/{row['filename']}", "answer": row["sentences"]}


def cauldron(rows: Iterator[Row]) -> Iterator[Row]:
    """The Cauldron: `images`, and `texts` of {user, assistant}, each of which is an item."""
    for row in rows:
        for turn in row["texts"]:
            yield {"image": row["images"], "question": turn["user"], "answer": turn["assistant"]}


def yes_no(rows: Iterator[Row]) -> Iterator[Row]:
    """Keep the questions with the answer yes or no, in lower case; ids become row numbers, as public ids may repeat."""
    for row in rows:
        answer = str(row["answer"]).strip().casefold()
        if answer in ("yes", "no"):
            yield row | {"id": None, "answer": answer}
