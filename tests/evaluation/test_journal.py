"""The journal of an unfinished cell."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from forgetbench.core.records import Prediction
from forgetbench.evaluation.journal import Entry, Journal

FIRST = Entry(
    "a1", 0.25, [Prediction(option_logprobs=(-0.1, -2.5, -1 / 3)), Prediction(text='a "quoted"\nanswer \u00e9')]
)
SECOND = Entry("b2", 1.5, [Prediction(text=""), Prediction(text="a", cut_off=True), Prediction(text="", cut_off=False)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "cell", 0)
    journal.add(0, FIRST)
    journal.add(3, SECOND)
    return tmp_path / "cell"


def test_batches_come_back_bit_for_bit(folder: Path) -> None:
    assert Journal(folder, 0).read() == {0: FIRST, 3: SECOND}


def test_the_files_of_all_processes_are_read(folder: Path) -> None:
    Journal(folder, 1).add(1, SECOND)
    assert sorted(Journal(folder, 2).read()) == [0, 1, 3]


@pytest.mark.parametrize("cut", [1, 2, 20, 30])
def test_a_line_that_was_cut_short_counts_as_not_written_and_the_next_one_is_whole(folder: Path, cut: int) -> None:
    path = folder / "0.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    whole = Journal(folder, 0).read()
    assert whole in ({0: FIRST}, {0: FIRST, 3: SECOND})
    Journal(folder, 0).add(5, SECOND)
    assert Journal(folder, 0).read() == whole | {5: SECOND}


def test_an_edited_line_is_named_and_asked_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "0.jsonl"
    path.write_text(path.read_text().replace("-2.5", "-0.5"))
    assert Journal(folder, 0).read() == {3: SECOND}
    assert "0.jsonl:1 is damaged" in capsys.readouterr().err


def test_a_journal_of_before_replies_said_whether_they_were_cut_off_is_read_without_it(tmp_path: Path) -> None:
    body = b'[0, "a1", 0.25, [[null, "red"], [[-0.5, -1.5], null]]]'
    (tmp_path / "0.jsonl").write_bytes(sha256(body).hexdigest()[:16].encode() + b" " + body + b"\n")
    expected = [Prediction(text="red"), Prediction(option_logprobs=(-0.5, -1.5))]
    assert Journal(tmp_path, 0).read() == {0: Entry("a1", 0.25, expected)}


def test_nothing_is_there_before_the_first_batch(tmp_path: Path) -> None:
    assert Journal(tmp_path / "none", 0).read() == {}
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("body", [b"null", b"[1, 2]", b'[0, "a1", 0.25, [1]]', b"[" * 100_000])
def test_a_line_whose_checksum_holds_and_whose_content_does_not_is_asked_again(
    folder: Path, body: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "0.jsonl"
    path.write_bytes(sha256(body).hexdigest()[:16].encode() + b" " + body + b"\n" + path.read_bytes())
    assert Journal(folder, 0).read() == {0: FIRST, 3: SECOND}
    assert "0.jsonl:1 is damaged" in capsys.readouterr().err
