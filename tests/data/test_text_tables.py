"""CSV and TSV files are read as spreadsheets and pandas write them, or refused by line."""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image

from forgetbench.core.errors import UserError
from forgetbench.core.records import Sample
from forgetbench.data.manifest_file import load_manifest
from forgetbench.data.sources import load_samples

Load = Callable[..., list[Sample]]
LETTER = {"answer": "letter", "prompt": "{question}\n{options}"}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def written(content: str | bytes, name: str = "items.csv", **fields: Any) -> list[Sample]:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        given: dict[str, Any] = {"source": {}, "splits": {"train": {"files": [name]}}}
        given |= {"image_domains": ["text"], "text_tasks": ["words"]}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(given | fields))
        return load_samples(load_manifest(tmp_path / "mine.yaml"), "train")

    return written


def test_cells_are_texts_whatever_they_look_like(load: Load) -> None:
    rows = 'id,question,answer\r\n007,"Two, or ""more""?\nSay.",1.50\r\n\r\n8,Where?,NA\r\n'
    first, second = load(rows)
    assert (first.id, first.prompt, first.answer) == ("007", 'Two, or "more"?\nSay.', "1.50")
    assert (second.id, second.answer) == ("8", "NA")


@pytest.mark.parametrize("name", ["items.csv", "ITEMS.CSV", "items.csv.gz"])
def test_a_byte_order_mark_and_compression_are_no_part_of_the_header(load: Load, name: str) -> None:
    content = "\ufeffquestion,answer\nWho?,I\n".encode()
    (sample,) = load(gzip.compress(content) if name.endswith("gz") else content, name)
    assert (sample.id, sample.prompt, sample.answer) == ("0", "Who?", "I")


def test_tabs_separate_a_tsv(load: Load) -> None:
    (sample,) = load('question\tanswer\n"A\ttab, and a comma"\tyes\n', "items.tsv")
    assert (sample.prompt, sample.answer) == ("A\ttab, and a comma", "yes")


@pytest.mark.parametrize("options", ['["cat", "dog"]', "['cat', 'dog']"])
def test_options_are_a_list_as_json_or_python_writes_it(load: Load, options: str) -> None:
    quoted = options.replace('"', '""')
    (sample,) = load(f'question,options,answer\nWhich?,"{quoted}",dog\n', **LETTER)
    assert (sample.options, sample.answer) == (("cat", "dog"), "B")


def test_numbers_among_options_are_texts_of_the_table(load: Load) -> None:
    (sample,) = load('question,options,answer\nHow many?,"[4, 2, 0]",2\n', **LETTER)
    assert (sample.options, sample.answer) == (("4", "2", "0"), "B")


def test_a_list_of_accepted_answers_is_one_only_as_json(load: Load) -> None:
    first, second = load('question,answer\n1,"[""red"", ""crimson""]"\n2,"[1, 2]"\n')
    assert (first.references, second.references) == (("red", "crimson"), ("[1, 2]",))


def test_what_pandas_writes_is_read_with_absent_cells_absent(load: Load) -> None:
    held = io.BytesIO()
    Image.new("RGB", (600, 1), "red").resize((600, 400)).save(held, "BMP")
    picture = base64.b64encode(held.getvalue()).decode()
    frame = pd.DataFrame(
        {
            "index": [0, 1_000_000],
            "hint": [None, "Look."],
            "question": ["Which?", "And\twhich?"],
            "A": ["cat", "1"],
            "B": ["dog", "2"],
            "C": [None, "3"],
            "D": [None, None],
            "answer": ["B", "C"],
            "image": picture,
        }
    )
    fields = LETTER | {"source": {"adapter": "mmbench"}, "image_domains": ["pictures"]}
    first, second = load(frame.to_csv(sep="\t", index=False), "MMBench.tsv", **fields)
    assert (first.options, first.answer, first.prompt.splitlines()[0]) == (("cat", "dog"), "B", "Which?")
    assert (second.options, second.answer, second.prompt.splitlines()[0]) == (("1", "2", "3"), "C", "Look. And\twhich?")
    assert len(first.images) == 1


def test_an_empty_answer_is_absent(load: Load) -> None:
    with pytest.raises(UserError, match="field 'answer' is missing"):
        load("question,answer\nWho?,\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("question,answer\nWho?,I\nWhy, oh why?,so\n", r"items.csv:3: 3 cells, but the header has 2"),
        ("question,answer\nWho?\n", r"items.csv:2: 1 cells, but the header has 2"),
        ('question,answer\n"Who" says?,I\n', r"items.csv:2: not readable as csv"),
        ('question,answer\n"Who?,I\n', r"items.csv:2: not readable as csv"),
        ("question,answer,answer\nWho?,I,me\n", "the column 'answer' twice"),
        ("question;answer\nWho?;I\n", r"items.csv:1: the header is one cell, with ';' inside"),
        (b"question,answer\nWho?,\xff\n", "items.csv: not readable as jsonl: .*utf-8"),
    ],
)
def test_a_line_that_is_laid_out_otherwise_is_named(load: Load, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(content)
