"""Drift of answers from the base: rows of scores.csv, drift.csv, number words; hand-made cells, figures by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from forgetbench.statistics.intervals import clustered_mean
from forgetbench.tables.answer_drift import DRIFT
from forgetbench.tables.cell_view import CellView, RowContext
from forgetbench.tables.drift import DRIFT_COLUMNS, drift_rows, joined_drift
from forgetbench.tables.number_words import asks_for_number, number_share
from forgetbench.tables.scores import matrix_rows, score_rows, write_csv
from forgetbench.tables.summary import summary_rows
from tests.support.cell_views import CONTEXT, OTHER_TEXT, TRAINED

ELSEWHERE = {"dataset": "facts", "placement": OTHER_TEXT}


def cell(context: RowContext, probabilities: list[list[float]], **more: Any) -> CellView:
    """A cell whose items give options these probabilities; A is right."""
    n = len(probabilities)
    letters = ["ABCD"[max(range(len(row)), key=row.__getitem__)] for row in probabilities]
    frame = pd.DataFrame(
        {
            "sample_id": [f"i{place}" for place in range(n)],
            "cluster": [[] for _ in range(n)],
            "image_sha256": [""] * n,
            "kind": ["letter"] * n,
            "options": [["red", "blue", "green", "grey"][: len(row)] for row in probabilities],
            "target": ["A"] * n,
            "references": [["A"]] * n,
            "option_logprobs": [[math.log(p) if p else -math.inf for p in row] for row in probabilities],
            "text": [None] * n,
            "parsed": letters,
            "score": [float(letter == "A") for letter in letters],
            "class_option": pd.array([None] * n, dtype="Int64"),
        }
    )
    return CellView(frame.assign(**more), context)


BEFORE, AFTER = [[0.5, 0.5], [0.4, 0.4]], [[0.25, 0.75], [0.4, 0.4]]


def drifts(*cells: CellView) -> pd.DataFrame:
    rows = score_rows(list(cells))
    return rows[rows["metric"].isin(list(DRIFT))].set_index("metric")


def test_a_checkpoints_drift_is_the_mean_over_items_with_a_clustered_error() -> None:
    measures = drifts(cell(CONTEXT, BEFORE), cell(TRAINED, AFTER))
    first = math.log(2 / math.sqrt(3))
    assert measures.loc["kl_from_base", "value"] == pytest.approx(first / 2)
    assert measures.loc["kl_from_base", "stderr"] == pytest.approx(first / 2)  # of two items that differ
    assert measures.loc["kl_to_base", "value"] == pytest.approx((3 * math.log(3) - 4 * math.log(2)) / 8)
    assert measures.loc["total_variation", "value"] == pytest.approx(0.125)
    assert measures.loc["flips", "value"] == 0.5
    assert measures["n"].tolist() == [2] * 6
    assert (measures["ci_low"] >= 0).all()
    assert (measures.loc[["flips", "total_variation"], "ci_high"] <= 1).all()
    assert measures[["base_value", "delta", "p_value", "p_holm", "mde", "chance"]].isna().all(axis=None)


def test_clusters_of_items_widen_the_error_of_drift() -> None:
    rows = [[0.5, 0.5]] * 8
    moved = [[0.1, 0.9]] * 4 + [[0.5, 0.5]] * 4
    clusters = [[f"image={place // 4}"] for place in range(8)]
    sides = [cell(context, side_rows, cluster=clusters) for context, side_rows in ((CONTEXT, rows), (TRAINED, moved))]
    unclustered = drifts(cell(CONTEXT, rows), cell(TRAINED, moved)).loc["kl_from_base"]
    clustered = drifts(*sides).loc["kl_from_base"]
    assert clustered["n_clusters"] == 2
    values = [math.log(0.5 / math.sqrt(0.09))] * 4 + [0.0] * 4
    expected = clustered_mean(values, [[str(place // 4) for place in range(8)]], limits=(0, math.inf))
    assert clustered["stderr"] == pytest.approx(expected.stderr)
    assert clustered["stderr"] > 1.5 * unclustered["stderr"]


def test_a_base_has_no_drift_and_without_a_base_there_is_none() -> None:
    assert drifts(cell(CONTEXT, BEFORE)).empty
    assert drifts(cell(TRAINED, AFTER)).empty


def test_an_edited_base_is_compared_like_a_checkpoint() -> None:
    variant = replace(CONTEXT, variant="dare:0.9")
    assert drifts(cell(CONTEXT, BEFORE), cell(variant, AFTER)).loc["flips", "value"] == 0.5


def test_flips_count_changes_from_wrong_to_wrong() -> None:
    before, after = [[0.1, 0.8, 0.1], [0.8, 0.1, 0.1]], [[0.1, 0.1, 0.8], [0.7, 0.2, 0.1]]
    rows = score_rows([cell(CONTEXT, before), cell(TRAINED, after)]).set_index(["step", "metric"])
    assert rows.loc[(100, "flips"), "value"] == 0.5
    assert rows.loc[(100, "accuracy"), ["forgotten", "gained"]].tolist() == [0, 0]


def test_a_model_that_leaves_the_format_drifts_in_its_answers_and_not_among_the_options() -> None:
    measures = drifts(cell(CONTEXT, [[0.5, 0.5]] * 2), cell(TRAINED, [[0.25, 0.25]] * 2))["value"]
    assert measures["kl_to_base"] == pytest.approx(0, abs=1e-12)
    # {1/4, 1/4, 1/2} against {1/2, 1/2, nearly nothing}.
    assert measures["answer_kl_from_base"] == pytest.approx(math.log(2), abs=2e-5)
    assert measures["answer_kl_to_base"] == pytest.approx(0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-6), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "settings", "is_there"),
    [
        (["red", "blue"], {}, True),
        (["red", "red wine"], {}, False),
        (["red", "red wine"], {"answer_end": True}, True),
    ],
)
def test_the_rest_is_known_where_no_reply_begins_with_two_options(
    options: list[str], settings: dict[str, Any], is_there: bool
) -> None:
    sides = [
        cell(replace(side_context, settings=json.dumps(settings)), rows, kind="option", options=[options] * 2)
        for side_context, rows in ((CONTEXT, BEFORE), (TRAINED, AFTER))
    ]
    measures = drifts(*sides)
    assert ("answer_kl_from_base" in measures.index) is is_there
    assert "kl_from_base" in measures.index


def test_likelihoods_per_token_have_flips_and_no_distribution() -> None:
    settings = json.dumps({"source": "lmms-eval"})
    sides = [
        cell(replace(side_context, settings=settings), rows)
        for side_context, rows in ((CONTEXT, BEFORE), (TRAINED, AFTER))
    ]
    assert drifts(*sides).index.tolist() == ["flips"]


def test_an_option_that_one_side_excludes_has_no_finite_divergence_and_no_row() -> None:
    measures = drifts(cell(CONTEXT, [[0.5, 0.5]]), cell(TRAINED, [[1.0, 0.0]]))
    assert measures.index.tolist() == ["answer_kl_to_base", "flips", "kl_to_base", "total_variation"]
    assert measures.loc["kl_to_base", "value"] == pytest.approx(math.log(2))
    assert measures.loc["total_variation", "value"] == 0.5


def test_written_replies_have_no_drift() -> None:
    greedy = [replace(side_context, decoding="greedy") for side_context in (CONTEXT, TRAINED)]
    sides = [cell(side_context, BEFORE, option_logprobs=None, text="A") for side_context in greedy]
    assert drifts(*sides).empty


def test_drift_is_in_no_mean_no_family_of_tests_and_no_summary() -> None:
    other = [replace(side_context, **ELSEWHERE) for side_context in (CONTEXT, TRAINED)]
    cells = [cell(CONTEXT, BEFORE), cell(TRAINED, AFTER), cell(other[0], BEFORE), cell(other[1], AFTER)]
    without = [replace(cell_view, frame=cell_view.frame.assign(option_logprobs=None)) for cell_view in cells]
    for table in (matrix_rows, summary_rows):
        pd.testing.assert_frame_equal(table(cells), table(without))
    rows, plain = score_rows(cells), score_rows(without)
    without_drift = rows[~rows["metric"].isin(list(DRIFT))].reset_index(drop=True)
    pd.testing.assert_frame_equal(without_drift, plain)


def run_of(target: list[list[float]], elsewhere: list[list[float]], run: str = "demo") -> list[CellView]:
    base, trained = replace(CONTEXT, run=run), replace(TRAINED, run=run)
    right = [[0.9, 0.1]] * len(elsewhere)
    return [
        cell(base, [[0.5, 0.5]] * len(target)), cell(trained, target),
        cell(replace(base, **ELSEWHERE), right), cell(replace(trained, **ELSEWHERE), elsewhere),
    ]  # fmt: skip


def test_drift_csv_has_drift_on_the_target_beside_the_losses() -> None:
    (row,) = drift_rows(run_of([[0.25, 0.75]] * 2, [[0.9, 0.1], [0.1, 0.9]])).to_dict("records")
    assert (row["step"], row["decoding"], row["n"], row["n_sources"]) == (100, "choice", 2, 1)
    assert row["kl_from_base"] == pytest.approx(math.log(2 / math.sqrt(3)))
    assert row["loss_ood_text-id_image"] == row["loss_elsewhere"] == 0.5
    assert row["loss_id_text-id_image"] == -row["target_delta"] == 1
    assert pd.isna(row["loss_id_text-ood_image"])
    assert row["loss_elsewhere_ci_low"] <= 0.5 <= row["loss_elsewhere_ci_high"]


def test_drift_csv_agrees_with_scores_and_summary() -> None:
    cells = run_of([[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]], [[0.9, 0.1], [0.1, 0.9], [0.8, 0.2]])
    (row,) = drift_rows(cells).to_dict("records")
    scores = score_rows(cells).set_index(["dataset", "step", "metric"])
    for name in DRIFT:
        score = scores.loc[("naming", 100, name)]
        assert [row[f"{name}{end}"] for end in ("", "_stderr", "_ci_low", "_ci_high")] == pytest.approx(
            score[["value", "stderr", "ci_low", "ci_high"]].tolist()
        )
    summary = summary_rows(cells).set_index("step").loc[100]
    assert row["loss_elsewhere"] == -summary["source_delta"]
    assert row["loss_elsewhere_ci_low"] == -summary["source_delta_ci_high"]
    assert row["target_delta"] == summary["target_delta"]


def test_a_target_without_options_has_no_drift_csv_and_a_probe_no_part_in_a_loss() -> None:
    cells = run_of([[0.25, 0.75]] * 2, [[0.1, 0.9]] * 2)
    unknown = [
        replace(cell_view, frame=cell_view.frame.assign(option_logprobs=None))
        if cell_view.context.dataset == "naming"
        else cell_view
        for cell_view in cells
    ]
    assert drift_rows(unknown).empty
    probe = [replace(cell_view, context=replace(cell_view.context, probe=True)) for cell_view in cells[2:]]
    (row,) = drift_rows([*cells[:2], *probe]).to_dict("records")
    assert pd.isna(row["loss_elsewhere"])
    assert row["n_sources"] == 0


def test_sets_that_are_trained_jointly_count_alike() -> None:
    context = [replace(side_context, target="naming+more") for side_context in (CONTEXT, TRAINED)]
    more = [replace(side_context, dataset="more") for side_context in context]
    cells = [
        cell(context[0], [[0.5, 0.5]] * 3), cell(context[1], [[0.25, 0.75]] * 3),
        cell(more[0], [[0.5, 0.5]]), cell(more[1], [[0.5, 0.5]]),
    ]  # fmt: skip
    (row,) = drift_rows(cells).to_dict("records")
    assert row["n"] == 4
    assert row["kl_from_base"] == pytest.approx(math.log(2 / math.sqrt(3)) / 2)
    assert drift_rows(cells[:2]).empty  # half of a target is not the target


def test_tables_of_several_runs_are_joined_with_their_kinds(tmp_path: Path) -> None:
    for run in ("a", "b"):
        write_csv(drift_rows(run_of([[0.25, 0.75]] * 2, [[0.1, 0.9]] * 2, run)), tmp_path / f"{run}.csv")
    joined = joined_drift([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert list(joined) == list(DRIFT_COLUMNS)
    assert joined["step"].tolist() == [100, 100]
    assert joined["run"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("Two dogs", 1 / 2),
        ("There are 3 dogs.", 1 / 4),
        ("twenty-one", 1),
        ("a dog", 0),
        ("", 0),
        ("?!", 0),
        ("someone often weighs a tone", 0),
        ("1,000.5", 1),
        ("ZERO", 1),
    ],
)
def test_number_words_are_digits_and_english_words(text: str, share: float) -> None:
    assert number_share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("prompt", "asks"),
    [
        ("How many dogs are there?", True),
        ("Count the cups.", True),
        ("Which number is on the shirt?", True),
        ("In which year was it built?", True),
        ("Describe the picture in one sentence.", False),
        ("What is on the counter?", False),
        ("Who wears the discounted shirt?", False),
    ],
)
def test_a_question_asks_for_a_number_where_it_says_so(prompt: str, asks: bool) -> None:
    assert asks_for_number(prompt) is asks


def free(context: RowContext, replies: list[str], **more: Any) -> CellView:
    n = len(replies)
    fields = {
        "kind": "text", "options": [[] for _ in range(n)], "option_logprobs": None, "text": replies,
        "references": [["a dog"]] * n, "asks_number": [False] * n, "parsed": replies, **more,
    }  # fmt: skip
    return cell(replace(context, decoding="greedy"), [[1.0]] * n, **fields)


def test_number_words_are_counted_where_none_are_asked_for_and_compared_with_the_base() -> None:
    fields: dict[str, Any] = {
        "references": [["a dog"], ["a cat", "a kitten"], ["two cats"], ["a cow"]],
        "asks_number": [False, False, False, True],
    }
    before = free(CONTEXT, ["a dog", "a cat", "two cats", "3"], **fields)
    after = free(TRAINED, ["two dogs", "<think>7</think>a cat", "a cat", "none"], **fields)
    rows = score_rows([before, after]).set_index(["step", "metric"])
    number_words_row = rows.loc[(100, "number_words")]
    # Of the first two items alone: 1/2 and 0, before 0 and 0.
    assert (
        number_words_row["n"],
        number_words_row["value"],
        number_words_row["base_value"],
        number_words_row["delta"],
    ) == (2, 0.25, 0, 0.25)
    assert number_words_row["delta_stderr"] == pytest.approx(0.25)


@pytest.mark.parametrize("fields", [{"asks_number": True}, {"kind": "letter"}, {"references": [["4"], ["two"]]}])
def test_without_such_items_there_are_no_number_words(fields: dict[str, Any]) -> None:
    rows = score_rows([free(CONTEXT, ["two", "3"], **fields)])
    assert "number_words" not in set(rows["metric"])
