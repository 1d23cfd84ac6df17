"""The right option is read in one way for a whole split, or its item is refused by its id."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from forgetbench.core.errors import UserError
from forgetbench.core.records import Sample
from forgetbench.data.manifest import Manifest
from forgetbench.data.manifest_file import load_manifest
from forgetbench.data.sources import load_samples, read_split

Row = dict[str, Any]
Load = Callable[..., list[Sample]]


def made(folder: Path, file: str = "items.jsonl", **fields: Any) -> Manifest:
    given: Row = {"source": {"kind": "parquet" if file.endswith("parquet") else "jsonl"}}
    given |= {"splits": {"train": {"files": [file]}}, "image_domains": ["text"], "text_tasks": ["sums"]}
    given |= {"answer": "letter", "prompt": "{question}\n{options}"}
    (folder / "mine.yaml").write_text(yaml.safe_dump(given | fields))
    return load_manifest(folder / "mine.yaml")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def written(rows: Sequence[Row], limit: int | None = None, **fields: Any) -> list[Sample]:
        (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load_samples(made(tmp_path, **fields), "train", limit)

    return written


def item(options: Sequence[object], answer: object) -> Row:
    return {"question": "Which?", "options": list(options), "answer": answer}


def right(samples: Sequence[Sample]) -> list[str]:
    return [sample.options[sample.target] for sample in samples if sample.target is not None]


def test_a_number_among_options_that_are_numbers_is_the_value(load: Load) -> None:
    assert right(load([item([10, 2, 0], 2), item([1, 0, 2], 0), item([0.5, 1.5], 1.5)])) == ["2", "0", "1.5"]


def test_a_number_that_became_a_float_in_a_table_is_the_same_number(load: Load) -> None:
    assert right(load([item(["4", "2"], 2.0), item([4, 2], 4.0)])) == ["2", "4"]
    assert right(load([item(["cat", "dog"], 1.0)])) == ["dog"]
    assert right(load([item(["1.0", "2.0"], 1), item([1.0, 2.0], "1"), item([".5", "1"], 0.5)])) == ["1.0", "1.0", ".5"]
    assert right(load([item(["1", "1.0"], "1.0"), item(["1", "1.0"], "1")])) == ["1.0", "1"]


def test_an_answer_repeats_an_option_whatever_its_blanks_and_unicode_form(load: Load) -> None:
    assert right(load([item(["cafe\u0301", "tea"], " caf\u00e9"), item(["New  York", "Rome"], "New York")])) == [
        "cafe\u0301",
        "New  York",
    ]


def test_items_that_only_a_place_explains_decide_for_those_that_read_both_ways(load: Load) -> None:
    # The last answer is no option, so that all are places: 2 is the third option, "1".
    assert right(load([item([3, 2, 1, 0], 2), item([5, 6, 7], 1), item([7, 8, 9], 0)])) == ["1", "6", "7"]


def test_letters_that_are_options_are_read_as_the_other_items_are(load: Load) -> None:
    crossed = item(["B", "A", "C"], "A")
    assert right(load([crossed, item(["P", "Q"], "Q")])) == ["A", "Q"]
    assert right(load([crossed, item(["left", "right"], "A")])) == ["B", "left"]


def test_an_item_that_reads_both_ways_in_a_split_of_both_is_refused_by_name(load: Load) -> None:
    rows = [item([3, 2, 1, 0], 2), item([7, 8], 8), item([5, 6], 0)]
    with pytest.raises(UserError, match=r"item 0 of split 'train': answer 2 is the text .* `answer_is: text`"):
        load(rows)
    assert right(load(rows[:2])) == ["2", "8"]


@pytest.mark.parametrize(
    ("reading", "expected"),
    [("text", ["1", "0"]), ("index_from_0", ["2", "3"]), ("index_from_1", ["3", None])],
)
def test_the_manifest_can_set_the_reading(load: Load, reading: str, expected: list[str | None]) -> None:
    rows = [item([3, 2, 1, 0], 1), item([3, 2, 1, 0], 0)]
    for row, option in zip(rows, expected, strict=True):
        if option is None:
            with pytest.raises(UserError, match=r"answer 0 is no index_from_1 of the options"):
                load([row], answer_is=reading)
        else:
            assert right(load([row], answer_is=reading)) == [option]


def test_letters_that_count_though_they_are_options_are_set_by_the_manifest(load: Load) -> None:
    assert right(load([item(["B", "A"], "A")], answer_is="letter")) == ["B"]


def test_places_that_count_from_1_are_never_taken_for_places_from_0(load: Load) -> None:
    rows = [item(["cat", "dog"], 1), item(["sun", "moon"], 2)]
    with pytest.raises(UserError, match=r"answer 2 is not an index, from 0, .* `answer_is: index_from_1`"):
        load(rows)
    assert right(load(rows, answer_is="index_from_1")) == ["cat", "moon"]


def test_a_few_items_are_read_as_the_whole_split_is(load: Load) -> None:
    crossed, telling = item([2, 0, 1], 1), item(["cat", "dog"], 1)
    for rows in ([crossed] * 9 + [telling], [telling] + [crossed] * 9):
        few = load(rows, limit=3)
        assert {sample.answer for sample in few} == {"B"}
    with pytest.raises(UserError, match="other items of the split count from 1"):
        load([item(["cat", "dog"], 2)] + [item(["cat", "dog"], 1)] * 9, limit=1)


def test_words_are_answered_by_their_text_or_as_the_manifest_says(load: Load) -> None:
    fixed = {"answer": "option", "options": ["no", "yes"], "prompt": "{question}"}
    assert right(load([{"question": "?", "answer": "yes"}], **fixed)) == ["yes"]
    assert right(load([{"question": "?", "answer": 1}], answer_is="index_from_0", **fixed)) == ["yes"]
    with pytest.raises(UserError, match="answer '1' is not one of the options"):
        load([{"question": "?", "answer": 1}], **fixed)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answer_is": "letter", "answer": "text"}, "with `answer: text` leave it out"),
        ({"answer_is": "letter", "source": {"adapter": "ai2d"}}, "said by the adapter 'ai2d'"),
        ({"answer_is": "place"}, "answer_is: .*place"),
    ],
)
def test_a_reading_that_does_not_apply_is_refused(tmp_path: Path, fields: Row, message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(tmp_path, **fields)


def test_a_letter_that_is_asked_for_without_options_is_refused(load: Load) -> None:
    with pytest.raises(UserError, match=r"item 0 .* its prompt shows no options; write \{options\}"):
        load([item(["cat", "dog"], "A")], prompt="{question}")
    shown = item(["cat", "dog"], "A") | {"question": "Which?\n(A) cat\n(B) dog"}
    assert right(load([shown], prompt="{question}")) == ["cat"]


# Absent cells.


def table(folder: Path, row: Row, **fields: Any) -> Manifest:
    pq.write_table(pa.Table.from_pylist([row]), folder / "items.parquet")
    return made(folder, "items.parquet", **fields)


NAN = float("nan")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"options": [1.0, NAN], "answer": 1.0}, "an option is empty"),
        ({"options": ["a", "b"], "answer": NAN}, "`answer` is null"),
        ({"options": ["a", "b"], "answer": "a", "hint": NAN}, "asks for {hint}, which the item lacks"),
        ({"options": ["a", "b"], "answer": "a", "hint": "h", "fact": NAN}, "field 'fact' is missing"),
    ],
)
def test_an_absent_cell_is_never_the_text_nan(tmp_path: Path, row: Row, message: str) -> None:
    fields: Row = {"cluster_by": ["fact"]} if "fact" in row else {}
    prompt = "{hint} {question}\n{options}" if "hint" in row else "{question}\n{options}"
    with pytest.raises(UserError, match=message):
        load_samples(table(tmp_path, {"question": "?"} | row, prompt=prompt, **fields), "train")


@pytest.mark.parametrize("answer", [NAN, [NAN], [1.0, NAN]])
def test_an_absent_reference_is_none(tmp_path: Path, answer: object) -> None:
    with pytest.raises(UserError, match="`answer`"):
        load_samples(table(tmp_path, {"question": "?", "answer": answer}, answer="text", prompt="{question}"), "train")


def test_words_that_read_like_absent_cells_are_words(load: Load) -> None:
    assert right(load([item(["nan", "None", "N/A", "null"], "None")])) == ["None"]


# Options that could not be told apart, or show nothing.


@pytest.mark.parametrize(
    "options",
    [
        ["cat", "\u200b"],
        ["cat", "\ufeff \u00a0"],
        ["cat", "\u3164"],
        ["cat", "<b></b>"],
        ["cat", "<p><i> </i></p>"],
        ["cat", "&nbsp;"],
        ["cat", r"\text{ }"],
    ],
)
def test_an_option_that_shows_nothing_is_refused(load: Load, options: list[str]) -> None:
    with pytest.raises(UserError, match=r"item 0 .*an option is empty"):
        load([item(options, "cat")])


@pytest.mark.parametrize(
    "options",
    [["caf\u00e9", "cafe\u0301"], ["New York", "New  York"], ["cat", "cat\u200b"], ["1\u00a0km", "1 km"]],
)
def test_options_that_nobody_can_tell_apart_are_refused(load: Load, options: list[str]) -> None:
    with pytest.raises(UserError, match=r"item 0 .*two options read"):
        load([item(options, options[0])])


@pytest.mark.parametrize(
    "options",
    [["Gg", "GG"], ["mW", "MW"], ["*", "**"], ["$", "$$"], ["m2", "m\u00b2"], ["<b>", "<i>"], ["a-b", "a\u2013b"]],
)
def test_options_that_a_reply_can_repeat_are_different(load: Load, options: list[str]) -> None:
    assert right(load([item(options, options[1])])) == [options[1]]


def test_an_option_that_is_no_text_is_refused(load: Load) -> None:
    with pytest.raises(UserError, match=r"an option must be a text or a number, not \{'text': 'cat'\}"):
        load([item([{"text": "cat"}, {"text": "dog"}], 0)])


# Characters that no program can hold.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "Which fits \ud83d?"}, r"its user turn holds half a character \(\\ud83d\)"),
        ({"question": "Which\x00?"}, "its user turn holds the character NUL"),
        ({"options": ["\udc4d", "cat"]}, "its option holds half a character"),
        ({"options": ["a\x07b", "cat"]}, r"its option holds the control character U\+0007"),
        ({"answer": "\ud83d"}, "is no letter, index or text"),
        ({"id": "a\x1b[31m"}, "its id holds the control character"),
    ],
)
def test_half_characters_and_control_characters_are_refused_by_id(load: Load, change: Row, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load([item(["cat", "dog"], "cat") | {"id": "x"}, item(["cat", "dog"], 0) | {"id": "y"} | change])
    assert "item 1 of split 'train'" in str(caught.value)
    str(caught.value).encode()
    assert "\x1b" not in str(caught.value)


def test_an_open_answer_with_half_a_character_is_refused_and_both_halves_are_one(load: Load) -> None:
    open_ended = {"answer": "text", "prompt": "{question}"}
    (sample,) = load([{"question": "\ud83d\ude00?", "answer": "\ud83d\ude00"}], **open_ended)
    assert sample.answer == "\U0001f600"
    with pytest.raises(UserError, match="its answer holds half a character"):
        load([{"question": "?", "answer": "\ud83d"}], **open_ended)


def test_all_refused_items_are_named_in_the_order_of_the_file(load: Load, tmp_path: Path) -> None:
    rows = [item([3, 2, 1, 0], 2), item([7, 8], 8), item(["", "b"], "b"), item([5, 6], 0)]
    with pytest.raises(UserError):
        load(rows)
    refused = read_split(made(tmp_path), "train").refused
    assert [refused_item.place for refused_item in refused] == [0, 2]


@pytest.mark.parametrize("answer", ["9" * 5000, "1e999999999", 10**400, float("inf")])
def test_a_number_beyond_any_option_is_refused_by_its_item(load: Load, answer: object) -> None:
    with pytest.raises(UserError, match="item 0"):
        load([item([1, 2], answer)])


def test_of_two_numbers_beyond_floats_none_is_the_other(load: Load) -> None:
    with pytest.raises(UserError, match="item 0"):
        load([item(["1e999", "2"], "2e999")])


def test_decimals_of_a_table_are_numbers(tmp_path: Path) -> None:
    row = {"question": "?", "options": [Decimal("1.0"), Decimal("2.0")], "answer": Decimal("2.0")}
    assert load_samples(table(tmp_path, row), "train")[0].answer == "B"
    open_ended = {"question": "?", "answer": Decimal("1.50")}
    assert load_samples(table(tmp_path, open_ended, answer="text", prompt="{question}"), "train")[0].answer == "1.50"
