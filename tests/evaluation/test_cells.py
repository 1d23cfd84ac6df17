"""Cells on disk: what is damaged is made again, what other rules scored is scored again."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from forgetbench.core.records import AnswerKind, Decoding, Metric, Prediction, Sample
from forgetbench.evaluation import cells
from forgetbench.evaluation.cells import CellKey, CellStore
from forgetbench.evaluation.settings import Settings
from forgetbench.scoring.answers import Answer

SETTINGS = Settings(Decoding.greedy, "fp32", 64, 12, ("\n",))
KEY = CellKey("model", "delta", "samples", SETTINGS)
SAMPLES = [
    Sample.question(
        "a", "How many?", "14 kg", AnswerKind.text, references=("14 kg", "fourteen kg"), clusters=("image=x",)
    ),
    Sample.question("b", "What?", "red car", AnswerKind.text, references=("red car",), clusters=("image=y",)),
    Sample.question("c", "Which?", "B", AnswerKind.text, references=("B",)),
]
PREDICTIONS = [Prediction(text="The 14 kg."), Prediction(text="red cars"), Prediction(text=" ")]


@pytest.fixture
def store(tmp_path: Path) -> CellStore:
    store = CellStore(tmp_path)
    store.write(KEY.digest, SAMPLES, ["x", "y", ""], PREDICTIONS, SETTINGS, Metric.accuracy, 1.23456)
    return store


def test_a_cell_is_read_as_it_was_written(store: CellStore) -> None:
    cell = store.read(KEY.digest, Metric.accuracy)
    assert cell is not None
    assert cell.seconds == 1.235
    assert cell.frame["text"].tolist() == ["The 14 kg.", "red cars", " "]
    assert cell.frame["parsed"].isna().tolist() == [False, False, True]
    assert cell.frame["correct"].tolist() == [True, False, False]
    assert [list(references) for references in cell.frame["references"]] == [
        ["14 kg", "fourteen kg"],
        ["red car"],
        ["B"],
    ]


def test_a_cell_says_which_open_questions_may_ask_for_a_number(store: CellStore) -> None:
    cell = store.read(KEY.digest, Metric.accuracy)
    assert cell is not None
    assert cell.frame["asks_number"].tolist() == [True, False, False]
    assert "asks_number" not in pq.read_schema(store.path(KEY.digest)).names  # stored files are as they were


def test_every_setting_of_decoding_is_in_every_row(store: CellStore) -> None:
    cell = store.read(KEY.digest, Metric.accuracy)
    assert cell is not None
    expected = {"decoding": "greedy", "precision": "fp32", "batch_size": 64, "max_new_tokens": 12, "stop": ["\n"]}
    assert {json.dumps(json.loads(settings), sort_keys=True) for settings in cell.frame["settings"]} == {
        json.dumps(expected, sort_keys=True)
    }


@pytest.mark.parametrize(
    "change",
    [{"decoding": Decoding.sample}, {"precision": "bf16"}, {"batch_size": 8}, {"stop": ()}, {"max_new_tokens": None},
     {"temperature": 1.0}, {"top_p": 0.5}, {"seed": 1}],
    ids=str,
)  # fmt: skip
def test_another_setting_is_another_cell(change: dict[str, object]) -> None:
    assert replace(KEY, settings=replace(SETTINGS, **change)).digest != KEY.digest


def test_a_setting_that_came_later_names_cells_only_where_it_applies() -> None:
    assert KEY.digest == "fde710ad32ff23e558e0c71786d4dda64f06517bb0256580b4a323ddcac0a43b"  # as it was before
    assert replace(KEY, settings=replace(SETTINGS, answer_end=True)).digest != KEY.digest


def test_other_marks_of_thoughts_score_stored_answers_again_and_are_kept(tmp_path: Path) -> None:
    thought = [Prediction(text="{{no}}14 kg"), Prediction(text="{{one red car"), Prediction(text="<think>a</think>B")]
    CellStore(tmp_path).write(KEY.digest, SAMPLES, ["x", "y", ""], thought, SETTINGS, Metric.accuracy, 1.0)
    results = []
    for marks in (None, [["{{", "}}"]], None):
        cell = CellStore(tmp_path, marks).read(KEY.digest, Metric.accuracy)
        assert cell is not None
        results.append((cell.frame["correct"].tolist(), cell.frame["cut_off"].tolist()))
    first, other, last = results
    assert first == ([False, False, True], [False, False, False])
    assert other == ([True, False, False], [False, True, False])
    assert last == other  # whoever only reads, reads as it was last scored


def test_a_cell_of_before_there_was_a_column_is_read_without_it(store: CellStore) -> None:
    path = store.path(KEY.digest)
    table = pq.read_table(path).drop_columns(["cut_off"])
    facts = json.loads(table.schema.metadata[b"facts"])
    del facts["marks"]
    facts["content"] = cells._rows_checksum(table)
    pq.write_table(table.replace_schema_metadata({"facts": json.dumps(facts)}), path)
    cell = store.read(KEY.digest, Metric.accuracy)
    assert cell is not None
    assert cell.frame["cut_off"].isna().all()
    assert cell.frame["parsed"].tolist()[:2] == ["The 14 kg.", "red cars"]


def test_what_was_cut_off_is_kept_when_a_cell_is_scored_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = [Prediction(text="14", cut_off=True), Prediction(text="red car", cut_off=False), Prediction(text="B")]
    written = CellStore(tmp_path).write(KEY.digest, SAMPLES, ["x", "y", ""], replies, SETTINGS, Metric.accuracy, 1.0)
    monkeypatch.setattr(cells, "rules_digest", lambda: "later")
    again = CellStore(tmp_path).read(KEY.digest, Metric.anls)
    assert again is not None
    for cell in (written, again):
        assert cell.frame["cut_off"].tolist() == [True, False, False]
        assert cell.frame["text_cut_off"].tolist() == [True, False, None]


def test_a_cell_of_before_replies_said_whether_they_were_cut_off_is_scored_by_its_thoughts(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    replies = [Prediction(text="14", cut_off=True), Prediction(text="<think>red car"), Prediction(text="B")]
    store.write(KEY.digest, SAMPLES, ["x", "y", ""], replies, SETTINGS, Metric.accuracy, 1.0)
    path = store.path(KEY.digest)
    table = pq.read_table(path).drop_columns(["text_cut_off"])
    facts = json.loads(table.schema.metadata[b"facts"]) | {"rules": "earlier", "content": cells._rows_checksum(table)}
    pq.write_table(table.replace_schema_metadata({"facts": json.dumps(facts)}), path)
    cell = store.read(KEY.digest, Metric.accuracy)
    assert cell is not None
    assert cell.frame["cut_off"].tolist() == [False, True, False]
    assert cell.frame["text_cut_off"].isna().all()


def test_another_model_checkpoint_or_item_is_another_cell() -> None:
    others = [replace(KEY, **{field: "other"}) for field in ("model", "delta", "samples")]
    assert len({key.digest for key in (KEY, *others)}) == 4


def test_a_truncated_cell_is_named_and_not_read(store: CellStore, capsys: pytest.CaptureFixture[str]) -> None:
    path = store.path(KEY.digest)
    path.write_bytes(path.read_bytes()[:-100])
    assert store.read(KEY.digest, Metric.accuracy) is None
    assert f"{path} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("column", ["text", "score", "parsed", "option_logprobs"])
def test_an_edited_cell_is_named_and_not_read(
    store: CellStore, column: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store.path(KEY.digest)
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[1][column] = {"score": 1.0, "option_logprobs": [0.5]}.get(column, "red car")
    edited = table.from_pylist(rows, schema=table.schema)
    pq.write_table(edited.replace_schema_metadata(table.schema.metadata), path)
    assert store.read(KEY.digest, Metric.accuracy) is None
    assert "is damaged" in capsys.readouterr().err


def test_a_cell_under_another_name_is_not_read(store: CellStore) -> None:
    other = replace(KEY, model="other").digest
    store.path(KEY.digest).rename(store.path(other))
    assert store.read(other, Metric.accuracy) is None


def test_other_rules_score_stored_answers_again_and_keep_what_came_out(
    store: CellStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store.path(KEY.digest).read_bytes()
    monkeypatch.setattr(cells, "rules_digest", lambda: "later")
    monkeypatch.setattr(cells, "score_answers", lambda *_: [Answer("x", True, 1.0) for _ in SAMPLES])
    cell = store.read(KEY.digest, Metric.accuracy)
    assert cell is not None
    assert cell.frame["correct"].all()
    assert cell.frame["text"].tolist() == ["The 14 kg.", "red cars", " "]
    assert store.path(KEY.digest).read_bytes() != before
    monkeypatch.setattr(cells, "score_answers", None)
    assert store.read(KEY.digest, Metric.accuracy) is not None


def test_scoring_again_keeps_the_versions_that_asked(store: CellStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "version", lambda _: "later")
    assert store.read(KEY.digest, Metric.anls) is not None
    facts = json.loads(pq.read_table(store.path(KEY.digest)).schema.metadata[b"facts"])
    assert facts["metric"] == "anls"
    assert "later" not in facts["versions"].values()
    assert set(facts["versions"]) == {"torch", "transformers"}


def test_another_metric_scores_stored_answers_again(store: CellStore) -> None:
    cell = store.read(KEY.digest, Metric.anls)
    assert cell is not None
    assert cell.metric is Metric.anls
    # "the 14 kg." against "14 kg": 5 of 10 edits are too many; "red cars" against "red car": 1 of 8.
    assert cell.frame["score"].tolist() == [0.0, 1 - 1 / 8, 0.0]
    assert cell.frame["correct"].isna().all()


def test_what_a_kill_left_is_removed_with_the_cell_there(store: CellStore, tmp_path: Path) -> None:
    shutil.copytree(store.path(KEY.digest).parent, tmp_path / "killed/.cells")  # this process has not seen it
    store = CellStore(tmp_path / "killed")
    store.partial(KEY.digest).mkdir()
    (store.partial(KEY.digest) / "0.jsonl").write_text("")
    store.path(KEY.digest).with_suffix(".lock").write_text("")
    left = [f".{KEY.digest}.parquet.00000000-1-{number}.tmp" for number in ("12345678", "9abcdef0")]
    old, young = (store.path(KEY.digest).with_name(name) for name in left)
    old.write_text("")
    os.utime(old, (0, 0))
    young.write_text("")  # another command may be writing it
    store.remove_leftovers(KEY.digest)
    assert {path.name for path in young.parent.iterdir()} == {f"{KEY.digest}.parquet", young.name}


def test_two_commands_that_score_a_cell_again_do_not_disturb_each_other(store: CellStore) -> None:
    def score_again(number: int) -> bool:
        metric = (Metric.accuracy, Metric.anls)[number % 2]
        cell = store.read(KEY.digest, metric)
        store.remove_leftovers(KEY.digest)
        return cell is not None and cell.metric is metric

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(score_again, range(40)))


@pytest.mark.parametrize(
    "change", [{"marks": 7}, {"marks": [["a"]]}, {"seconds": "long"}, {"beyond_context": [1]}, {"rules": None}]
)
def test_a_cell_that_says_odd_things_of_itself_is_damaged(
    store: CellStore, change: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    path = store.path(KEY.digest)
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"facts"]) | change
    pq.write_table(table.replace_schema_metadata({"facts": json.dumps(facts)}), path)
    assert store.read(KEY.digest, Metric.accuracy) is None
    assert "is damaged" in capsys.readouterr().err


def test_a_pipe_in_the_place_of_a_cell_is_damaged_and_never_waited_for(store: CellStore) -> None:
    path = store.path(KEY.digest)
    path.unlink()
    os.mkfifo(path)
    assert store.read(KEY.digest, Metric.accuracy) is None
