"""The table of docs/scoring.md that says how replies are read: each row is read as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forgetbench.core.records import AnswerKind, Metric, Prediction, Sample
from forgetbench.scoring.answers import score_answers

DOCS = Path(__file__).parents[2] / "docs"
OPTIONS = ("shirt", "trousers", "coat", "dress")
ROW = re.compile(r"^\| ([^|]+?) \| `(.+)` \| ([A-D]|unparsed|cut off) \|$", re.MULTILINE)
ROWS = [
    (rule, reply.replace(r"\n", "\n").replace(r"\|", "|"), expected)
    for rule, reply, expected in ROW.findall((DOCS / "scoring.md").read_text("utf-8"))
]
SAMPLE = Sample.question("x", "Which?", "A", AnswerKind.letter, references=("A",), options=OPTIONS)


def test_every_rule_has_a_row() -> None:
    assert {rule.split()[0] for rule, _, _ in ROWS} == {"thought", "thought,", "special", "1", "2", "3", "4"}
    assert len(ROWS) > 40


@pytest.mark.parametrize(("rule", "reply", "expected"), ROWS, ids=[f"{rule}: {reply}" for rule, reply, _ in ROWS])
def test_a_reply_is_read_as_the_table_says(rule: str, reply: str, expected: str) -> None:
    (answer,) = score_answers([SAMPLE], [Prediction(text=reply)], Metric.accuracy)
    assert answer.parsed == (expected if expected in "ABCD" else None)
    assert answer.cut_off == (expected == "cut off")
