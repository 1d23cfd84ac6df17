"""Predictions of other tools are matched to our items, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from forgetbench.core.errors import UserError
from forgetbench.core.records import AnswerKind, Decoding, Prediction, Sample
from forgetbench.data.predictions import ExternalPredictions, find_checkpoints, find_file, read_predictions

Row = dict[str, Any]
PETS = ("cat", "dog", "owl")
LM_EVAL, LMMS_EVAL = "2026-11-22T04-58-01.123456", "20261122_045801"


def letter(name: str, target: int, options: Sequence[str] = PETS) -> Sample:
    answer = "ABC"[target]
    kind = AnswerKind.letter
    return Sample.question(name, "Which?", answer, kind, references=(answer,), options=tuple(options))


def text(name: str, *references: str) -> Sample:
    return Sample.question(name, "What?", references[0], AnswerKind.text, references=references)


CHOICES = [letter("x", 1), letter("y", 0), letter("z", 2)]
OPEN = [text("x", "red", "crimson"), text("y", "blue"), text("z", "green")]
NAMES = ("x", "y", "z")

Read = Callable[..., ExternalPredictions]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write rows as JSON lines and read them."""

    def written(rows: Sequence[Row | str], samples: Sequence[Sample] = OPEN, **more: Any) -> ExternalPredictions:
        path = tmp_path / "given.jsonl"
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), "utf-8")
        return read_predictions(path, samples, **more)

    return written


def texts(external: ExternalPredictions) -> list[str | None]:
    assert external.decoding is Decoding.greedy
    return [prediction.text for prediction in external.predictions.values()]


def logprobs(external: ExternalPredictions) -> list[tuple[float, ...] | None]:
    assert external.decoding is Decoding.choice
    return [prediction.option_logprobs for prediction in external.predictions.values()]


# Folders and files.


def folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
    return root


def test_a_checkpoint_is_a_folder_whose_name_ends_in_the_step(tmp_path: Path) -> None:
    folders(tmp_path, "checkpoint-500", "base", "step_000100", "1000", ".cache")
    (tmp_path / "notes.txt").touch()
    checkpoints = find_checkpoints(tmp_path)
    assert [(checkpoint.step, checkpoint.name) for checkpoint in checkpoints] == [
        (0, "base"), (100, "step_000100"), (500, "checkpoint-500"), (1000, "1000"),
    ]  # fmt: skip
    assert checkpoints[0].path == tmp_path / "base"


def test_the_base_may_be_missing(tmp_path: Path) -> None:
    assert [checkpoint.step for checkpoint in find_checkpoints(folders(tmp_path, "step_7"))] == [7]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "has no subfolder. Expected one subfolder per checkpoint"),
        (("base", "final"), "'final' names no step"),
        (("base", f"step_{'9' * 40}"), f"'step_{'9' * 40}' names no step"),
        (("step_5", "checkpoint-5"), "'checkpoint-5' and 'step_5' are both step 5"),
        (("base", "step_0"), "'base' and 'step_0' are both step 0"),
    ],
)
def test_folders_that_are_no_course_of_checkpoints_are_refused(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        find_checkpoints(folders(tmp_path, *names))


def test_a_folder_of_predictions_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone is not a folder"):
        find_checkpoints(tmp_path / "gone")


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    "name",
    [
        "fashion.jsonl",
        "samples_fashion.jsonl",
        f"samples_fashion_{LM_EVAL}.jsonl",
        "samples_fashion_2026-11-22T04-58-01.jsonl",
        f"{LMMS_EVAL}_samples_fashion.jsonl",
        f"org__model/samples_fashion_{LM_EVAL}.jsonl",
        f"org__model/{LMMS_EVAL}_samples_fashion.jsonl",
        "fashion/predictions.jsonl",
        "fashion/generated_predictions.jsonl",
        f"fashion/samples_some_task_{LM_EVAL}.jsonl",
        f"fashion/org__model/samples_some_task_{LM_EVAL}.jsonl",
    ],
)
def test_every_tools_file_is_found(tmp_path: Path, name: str) -> None:
    others = ("samples_fashion_naming.jsonl", f"samples_fashion_naming_{LM_EVAL}.jsonl", "fashion_naming.jsonl")
    files(tmp_path, *others, "fashion_naming/predictions.jsonl", "results.json", "trainer_log.jsonl")
    assert find_file(tmp_path, "fashion") is None
    assert find_file(files(tmp_path, name), "fashion") == tmp_path / name


def test_a_dataset_whose_name_starts_with_anothers_has_its_own_file(tmp_path: Path) -> None:
    short, long = f"samples_fashion_{LM_EVAL}.jsonl", f"samples_fashion_naming_{LM_EVAL}.jsonl"
    files(tmp_path, short, long)
    assert find_file(tmp_path, "fashion") == tmp_path / short
    assert find_file(tmp_path, "fashion_naming") == tmp_path / long
    assert find_file(tmp_path, "naming") is None


def test_of_several_runs_the_newest_counts(tmp_path: Path) -> None:
    names = [f"m/samples_a_2026-{month}-01T00-00-00.5.jsonl" for month in ("09", "11", "10")]
    assert find_file(files(tmp_path, *names, "m/20260101_000000_samples_a.jsonl"), "a") == tmp_path / names[1]


@pytest.mark.parametrize(
    "names",
    [
        ("a.jsonl", f"samples_a_{LM_EVAL}.jsonl"),
        ("a.jsonl", "a/predictions.jsonl"),
        (f"m1/samples_a_{LM_EVAL}.jsonl", f"m2/samples_a_{LM_EVAL}.jsonl"),
        (f"a/samples_t1_{LM_EVAL}.jsonl", "a/20200101_000000_samples_t2.jsonl"),
    ],
)
def test_files_between_which_no_time_decides_are_refused_by_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=f"predictions for 'a': .*{names[0]}"):
        find_file(files(tmp_path, *names), "a")


# The plain layout.


def test_plain_texts_are_matched_by_id_in_any_order(read: Read) -> None:
    external = read([{"id": name, "text": f"is {name}"} for name in ("z", "x", "other", "y")])
    assert (texts(external), external.kind) == (["is x", "is y", "is z"], "plain")


def test_plain_log_probabilities_become_choices(read: Read) -> None:
    rows = [{"id": name, "logprobs": [-1, -2.5, -3.0]} for name in NAMES]
    assert logprobs(read(rows, CHOICES)) == [(-1.0, -2.5, -3.0)] * 3


def test_ids_may_be_numbers(read: Read) -> None:
    assert texts(read([{"id": 7, "text": "a"}], [text("7", "red")])) == ["a"]


def test_without_ids_lines_count_if_each_item_of_the_full_file_has_one(read: Read) -> None:
    rows, whole = [{"text": str(n)} for n in range(5)], [OPEN[0], text("p", "a"), OPEN[1], text("q", "a"), OPEN[2]]
    assert texts(read(rows, OPEN, whole=whole)) == ["0", "2", "4"]
    with pytest.raises(UserError, match=r"4 lines, but the dataset has 5 items\. Without ids"):
        read(rows[:4], OPEN, whole=whole)


def test_blank_lines_and_a_byte_order_mark_are_skipped(read: Read) -> None:
    assert texts(read(['\ufeff{"text": "a\\u2028b"}', "", '{"text": "c"}', '{"text": ""}'])) == ["a\u2028b", "c", ""]


# Ids.


@pytest.mark.parametrize("field", ["id", "question_id", "sample_id", "doc_id"])
def test_any_field_that_holds_our_ids_decides_whatever_the_order(read: Read, field: str) -> None:
    assert texts(read([{field: name, "text": f"is {name}"} for name in ("z", "x", "y")])) == ["is x", "is y", "is z"]


def test_the_field_whose_ids_are_ours_decides_before_the_others(read: Read) -> None:
    rows = [{"id": n, "question_id": name, "text": f"is {name}"} for n, name in enumerate(("y", "z", "x"))]
    assert texts(read(rows)) == ["is x", "is y", "is z"]


def test_ids_of_the_datasets_rows_decide_where_items_are_only_counted(read: Read) -> None:
    counted = [text(str(n), "red") for n in range(3)]
    rows = [{"question_id": n, "text": f"of {n}"} for n in (1, 2, 0)]
    others = {"0": {"question_id": "2"}, "1": {"question_id": "0"}, "2": {"question_id": "1"}}
    assert texts(read(rows, counted, other_ids=lambda: others)) == ["of 2", "of 0", "of 1"]
    assert texts(read(rows, counted)) == ["of 0", "of 1", "of 2"]
    shared = {"0": {"question_id": "0"}, "1": {"question_id": "0"}, "2": {"question_id": "0"}}  # of a picture, say
    assert texts(read(rows, counted, other_ids=lambda: shared)) == ["of 0", "of 1", "of 2"]


def test_ids_that_are_counted_otherwise_are_refused_and_not_shifted(read: Read) -> None:
    counted = [text(str(n), "red") for n in range(3)]
    rows = [{"question_id": n + 1, "text": f"of {n}"} for n in range(3)]
    with pytest.raises(UserError, match=r"given.jsonl:3: item '3' of a dataset with 3 items, which have no ids"):
        read(rows, counted, partial=True)


def test_ids_of_which_none_is_known_are_refused_though_lines_are_as_many(read: Read) -> None:
    with pytest.raises(UserError, match=r"no `question_id` .* the first is 'a', the dataset's first is 'x'"):
        read([{"question_id": name, "text": ""} for name in "abc"])


def test_a_line_without_the_id_of_the_others_is_named(read: Read) -> None:
    with pytest.raises(UserError, match=r"given.jsonl:2: there is no `sample_id`"):
        read([{"sample_id": "x", "text": ""}, {"text": ""}, {"sample_id": "y", "text": ""}])


def test_lines_of_no_item_are_counted_and_said(read: Read) -> None:
    external = read([{"id": name, "text": "a"} for name in ("x", "p", "y", "q", "z")])
    assert len(external.predictions) == 3
    assert "2 of 5 lines are of no item of the dataset, the first is line 2 (id 'p')" in external.notes[0]
    whole = [*OPEN, text("p", "a"), text("q", "a")]
    assert read([{"id": sample.id, "text": "a"} for sample in whole], whole=whole).notes == ()


def test_what_is_there_is_taken_if_asked_for_and_said(read: Read) -> None:
    rows = [{"id": name, "text": f"is {name}"} for name in ("z", "x")]
    external = read(rows, partial=True)
    assert list(external.predictions) == ["x", "z"]
    assert "1 of 3 items have no prediction, the first is 'y'" in external.notes[0]
    assert "scored are the 2 that have one" in external.notes[0]
    with pytest.raises(UserError, match="partial=true"):
        read(rows)
    with pytest.raises(UserError, match="3 of 3 items have no prediction"):
        read([{"id": "p", "text": ""}], whole=[*OPEN, text("p", "a")], partial=True)


def test_log_probabilities_are_what_they_are(read: Read) -> None:
    rows: list[Row | str] = ['{"id": "x", "logprobs": [-Infinity, 0.0004, -3]}', {"id": "y", "logprobs": [-1, 0, -2]}]
    assert logprobs(read(rows, CHOICES[:2])) == [(float("-inf"), 0.0004, -3.0), (-1.0, 0.0, -2.0)]


# lm-eval.


def lm_eval(place: int, resps: Any, filtered: Any, target: Any, **more: Any) -> Row:
    return {
        "doc_id": place,
        "doc": {"question": "What?"},
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": "What?", "arg_1": {"until": ["\n"]}}},
        "resps": resps,
        "filtered_resps": filtered,
        "filter": "none",
        "metrics": ["exact_match"],
        "doc_hash": "d",
        "exact_match": 1.0,
    } | more


def generated(place: int, says: str, target: Any, **more: Any) -> Row:
    return lm_eval(place, [[says]], [says], target, **more)


def test_lm_evals_generations_are_matched_by_place(read: Read) -> None:
    rows = [generated(2, " green", "green"), generated(0, " rot", "['red', 'crimson']"), generated(1, "blue", "Blue")]
    external = read(rows)
    assert (texts(external), external.kind) == ([" rot", "blue", " green"], "lm-eval")


@pytest.mark.parametrize(
    "pairs",
    [
        [["-1.5", "False"], ["-0.25", "True"], ["-4.0", "False"]],
        [[-1.5, False], [-0.25, True], [-4, False]],
        ["(-1.5, False)", "(-0.25, True)", "(-4.0, False)"],
    ],
)
@pytest.mark.parametrize("field", ["filtered_resps", "resps"])
def test_lm_evals_multiple_choice_has_a_pair_per_candidate(read: Read, pairs: list[Any], field: str) -> None:
    rows = [lm_eval(n, [[pair] for pair in pairs], pairs, str(sample.target)) for n, sample in enumerate(CHOICES)]
    kept = [{key: value for key, value in row.items() if key == field or "resps" not in key} for row in rows]
    assert logprobs(read(kept, CHOICES)) == [(-1.5, -0.25, -4.0)] * 3


def test_a_tasks_own_filters_are_passed_over_for_what_the_model_wrote(read: Read) -> None:
    rows = [
        lm_eval(n, [["So it is red"]], ["[invalid]"], "", filter=name)
        for name in ("strict-match", "flexible-extract")
        for n in range(3)
    ]
    assert texts(read(rows)) == ["So it is red"] * 3
    assert texts(read([*rows, *(generated(n, "red", "") for n in range(3))])) == ["red"] * 3


def test_our_id_in_the_document_goes_before_the_place(read: Read) -> None:
    rows = [generated(n, name, "", doc={"id": name}) for n, name in enumerate(reversed(NAMES))]
    assert texts(read(rows)) == ["x", "y", "z"]


def test_ids_that_only_count_otherwise_than_ours_do_not(read: Read) -> None:
    counted = [text(str(n), "red") for n in range(3)]
    rows = [generated(n, f"of {n}", "", doc={"id": n + 1}) for n in range(3)]
    assert texts(read(rows, counted)) == ["of 0", "of 1", "of 2"]


def test_items_beside_a_drawn_subset_are_left_out(read: Read) -> None:
    rows, whole = [generated(n, str(n), "") for n in range(9)], [text(str(n), "red") for n in range(9)]
    assert texts(read(rows, [whole[1], whole[4], whole[8]], whole=whole)) == ["1", "4", "8"]


def test_a_document_beyond_the_dataset_is_of_another(read: Read) -> None:
    with pytest.raises(UserError, match=r"given.jsonl:4: item 3 of a dataset with 3 items"):
        read([generated(n, "", "") for n in range(4)])


# lmms-eval.


def lmms_eval(place: int, filtered: Any, target: str, **more: Any) -> Row:
    return {"doc_id": place, "target": target, "filtered_resps": filtered, "doc_hash": "d", "input": "What?"} | more


@pytest.mark.parametrize("wrapped", [lambda reply: reply, lambda reply: [reply], lambda reply: [[reply]]])
def test_lmms_evals_generations_come_with_fewer_lists_than_before(read: Read, wrapped: Callable[[str], Any]) -> None:
    external = read([lmms_eval(n, wrapped(f"says {n}"), sample.answer) for n, sample in enumerate(OPEN)])
    assert (texts(external), external.kind) == (["says 0", "says 1", "says 2"], "lmms-eval")


def test_lmms_evals_reasoning_stays_out(read: Read) -> None:
    rows = [lmms_eval(n, "red", "", resps=["<think>hm</think>red"]) for n in range(3)]
    assert texts(read(rows)) == ["red"] * 3


def test_lmms_evals_losses_turn_into_log_probabilities(read: Read) -> None:
    losses, likelihoods = [["0.5", "False"], ["0.0", "True"], ["2.0", "False"]], [["-0.5", "True"], ["-1", "False"]]
    rows = [lmms_eval(0, losses, "1"), lmms_eval(1, [*likelihoods, ["-2", "False"]], "0")]
    assert logprobs(read(rows, CHOICES[:2])) == [(-0.5, 0.0, -2.0), (-0.5, -1.0, -2.0)]


# LLaMA-Factory.


def test_llama_factorys_lines_are_in_the_order_of_the_items(read: Read) -> None:
    rows = [
        {"prompt": "user\nWhat?", "predict": f"{n}", "label": f"{sample.answer}\n"} for n, sample in enumerate(OPEN)
    ]
    external = read(rows)
    assert (texts(external), external.kind) == (["0", "1", "2"], "LLaMA-Factory")
    with pytest.raises(UserError, match="2 lines, but the dataset has 3 items"):
        read(rows[:2])


# Alignment.


@pytest.mark.parametrize(
    "stated", ["B", "b.", "(B)", "1", 1, "dog", " Dog", "B. dog", ["dog"], "[1, 2]", None, "", "None"]
)
def test_a_target_may_be_a_letter_an_index_or_the_options_text(read: Read, stated: object) -> None:
    rows = [{"id": f"{n}", "text": "A", "target": stated} for n in range(3)]
    assert texts(read(rows, [letter(f"{n}", 1) for n in range(3)])) == ["A"] * 3


def test_a_targets_text_may_look_like_an_index(read: Read) -> None:
    rows = [{"id": "x", "text": "A", "label": "7"}]
    assert texts(read(rows, [letter("x", 1, ("3", "7", "1"))])) == ["A"]


def test_misaligned_targets_are_refused_with_the_first(read: Read) -> None:
    rows = [{"prompt": "", "predict": "", "label": label} for label in ("red", "green", "blue")]
    with pytest.raises(UserError, match=r"2 of 3 targets .* line 2 says 'green' for item 'y', whose answer is 'blue'"):
        read(rows)


@pytest.mark.parametrize(("wrong", "refused"), [(5, False), (6, True)])
def test_a_few_targets_may_be_written_otherwise(read: Read, wrong: int, refused: bool) -> None:
    samples = [text(str(n), "red") for n in range(110)]
    rows = [generated(n, "", "rouge" if n < wrong else "red" if n < 100 else "") for n in range(110)]
    if refused:
        with pytest.raises(UserError, match="6 of 100 targets"):
            read(rows, samples)
    else:
        assert len(texts(read(rows, samples))) == 110


# What is refused.


def test_missing_items_are_counted_and_the_first_is_named(read: Read) -> None:
    with pytest.raises(UserError, match=r"2 of 3 items have no prediction, the first is 'y' \(matched by id\)"):
        read([{"id": "x", "text": ""}])
    with pytest.raises(UserError, match=r"1 of 3 .* 'x' \(matched by place in the file\)"):
        read([generated(n, "", "") for n in (1, 2)])


@pytest.mark.parametrize("row", [{"id": "x", "text": ""}, generated(0, "", "")])
def test_an_item_that_is_there_twice_is_refused(read: Read, row: Row) -> None:
    with pytest.raises(UserError, match=r"given.jsonl:2: item '[x0]' has a prediction on line 1 already"):
        read([row, row])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([-1.0, -2.0], "item 'x': 2 log-probabilities for 3 candidates"),
        ([-1.0, float("nan"), -2.0], "item 'x': .*nan.* are no log-probabilities"),
        ([0.2, 0.7, 0.1], "item 'x': .* expected numbers of at most 0"),
        ([float("-inf")] * 3, "item 'x': all its log-probabilities are -Infinity"),
        (["-1.0", -2.0, -3.0], "give either `text`"),
    ],
)
def test_scores_that_cannot_be_log_probabilities_of_the_candidates_are_refused(
    read: Read, given: list[Any], message: str
) -> None:
    with pytest.raises(UserError, match=f"given.jsonl:1: {message}"):
        read([{"id": "x", "logprobs": given}], CHOICES[:1])


def test_an_open_question_has_no_candidates_to_score(read: Read) -> None:
    with pytest.raises(UserError, match="1 log-probabilities for an open question"):
        read([{"id": "x", "logprobs": [-1.0]}], OPEN[:1])


def test_text_and_log_probabilities_do_not_mix(read: Read) -> None:
    rows = [{"id": "x", "text": "A"}, {"id": "y", "logprobs": [-1, -2, -3]}]
    with pytest.raises(UserError, match="item 'y': text on some lines and log-probabilities on others"):
        read(rows, CHOICES[:2])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "not JSON"),
        ('"text"', "not a JSON object"),
        ("{}", r"the fields \(none\) are of no known layout"),
        ({"id": "x", "answer": "A"}, "the fields id, answer are of no known layout; expected `id`"),
        ({"id": "x", "text": "A", "logprobs": [-1]}, "give either `text`"),
        ({"id": "x", "text": None}, "give either `text`"),
        ({"predict": "red", "label": "red"}, "this line's layout is LLaMA-Factory, that of the lines before it plain"),
    ],
)
def test_a_line_that_is_not_readable_is_named_by_file_and_number(read: Read, line: Row | str, message: str) -> None:
    with pytest.raises(UserError, match=rf"given.jsonl:3: {message}"):
        read([{"id": "x", "text": "a"}, "", line])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (generated(0, "", "") | {"doc_id": "a"}, "`doc_id` must be the item's index"),
        (lm_eval(0, [], [["red", "blue"]], ""), "`filtered_resps` must hold one text, or a pair"),
        (lm_eval(0, [], [], ""), "`filtered_resps` must hold one text, or a pair"),
        ({"doc_id": 0, "target": "", "doc": {}}, "field 'filtered_resps' is missing from a line of the layout lm-eval"),
        ({"predict": ["red"], "label": ""}, "`predict` must be a string"),
    ],
)
def test_a_line_of_a_known_tool_that_does_not_fit_is_refused(read: Read, row: Row, message: str) -> None:
    with pytest.raises(UserError, match=f"given.jsonl:1: {message}"):
        read([row], OPEN[:1])


def test_a_file_without_predictions_is_refused(read: Read, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no predictions"):
        read([""])
    with pytest.raises(UserError, match=r"gone.jsonl cannot be read"):
        read_predictions(tmp_path / "gone.jsonl", OPEN)


def test_a_reply_that_no_model_wrote_is_refused_before_it_is_read(read: Read) -> None:
    with pytest.raises(UserError, match=r":1: item .* a text of 2,097,152 characters"):
        read([{"id": name, "text": "B " * 2**20} for name in "xyz"])


def test_predictions_are_the_records_that_the_engine_makes(read: Read) -> None:
    assert read([{"id": "x", "text": "red"}], OPEN[:1]).predictions == {"x": Prediction(text="red")}
