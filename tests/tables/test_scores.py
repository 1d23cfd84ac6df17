"""Tiny hand-made cells, hand-computed rows."""

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from forgetbench.core.errors import UserError
from forgetbench.core.records import Axis, Placement
from forgetbench.tables.cell_view import CellView, RowContext
from forgetbench.tables.scores import MATRIX_COLUMNS, SCORE_COLUMNS, matrix_rows, score_rows, write_csv
from tests.support.cell_views import CONTEXT, OTHER_TEXT, TARGET, TRAINED, cell


def test_columns_are_the_public_interface_in_order() -> None:
    assert ",".join(score_rows([cell(CONTEXT, [1])]).columns) == (
        "run,model,target,checkpoint,variant,method,parts,lr,mix,mix_ratio,seed,stage,step,dataset,"
        "image_domain,text_task,text_axis,image_axis,quadrant,seen_in_mix,decoding,metric,n,"
        "n_clusters,value,stderr,ci_low,ci_high,chance,base_value,delta,delta_stderr,delta_ci_low,"
        "delta_ci_high,forgotten,gained,p_value,p_holm,mde,unparsed,cut_off,label_bias,seconds,cell,settings"
    )
    assert ",".join(matrix_rows([cell(CONTEXT, [1])]).columns) == (
        "run,model,target,checkpoint,variant,method,parts,lr,mix,mix_ratio,seed,stage,step,quadrant,"
        "decoding,metric,seen_in_mix,n_datasets,n,value,stderr,ci_low,ci_high,base_value,delta,"
        "delta_stderr,delta_ci_low,delta_ci_high,p_value,p_holm"
    )


def test_no_cells_make_empty_tables() -> None:
    assert list(score_rows([]).columns) == list(SCORE_COLUMNS)
    assert list(matrix_rows([]).columns) == list(MATRIX_COLUMNS)


def test_forgetting_is_the_paired_difference_from_step_0() -> None:
    base, trained = score_rows([cell(TRAINED, [0, 0, 1, 1]), cell(CONTEXT, [1, 1, 1, 0])]).to_dict("records")
    assert (base["value"], base["base_value"], base["chance"]) == (0.75, 0.75, 0.25)
    assert pd.isna(base["delta"])
    assert (trained["value"], trained["base_value"], trained["delta"]) == (0.5, 0.75, -0.25)
    assert (trained["forgotten"], trained["gained"]) == (0.5, 0.25)
    # Changes -1 -1 0 1: residuals from -1/4 have squares 11/4; SE = sqrt(4/3 * 11/4) / 4.
    assert trained["delta_stderr"] == pytest.approx((11 / 3) ** 0.5 / 4)
    assert trained["mde"] == pytest.approx(2.801585 * (11 / 3) ** 0.5 / 4)
    # Of the 8 equally likely sums of three signs, all are at least |-1| away from 0.
    assert trained["p_value"] == 1
    assert pd.isna(trained["label_bias"])


def test_items_are_paired_by_id_not_by_position() -> None:
    base = cell(CONTEXT, [1, 0, 1])
    shuffled = replace(base, frame=base.frame.iloc[::-1].reset_index(drop=True))
    row = score_rows([shuffled, cell(TRAINED, [1, 0, 0])]).iloc[1]
    assert (row["forgotten"], row["gained"]) == (pytest.approx(1 / 3), 0)


def test_different_items_are_an_error_that_names_them() -> None:
    with pytest.raises(UserError, match=r"naming \(1 and 2; e\.g\. i1\)"):
        score_rows([cell(CONTEXT, [1, 0]), cell(TRAINED, [1])])


def test_without_a_base_the_delta_is_absent() -> None:
    row = score_rows([cell(TRAINED, [1, 0])]).iloc[0]
    assert row["value"] == 0.5
    assert pd.isna(row["base_value"])
    assert pd.isna(row["delta"])
    assert pd.isna(row["mde"])


def test_a_variant_of_the_base_is_compared_with_the_untouched_base() -> None:
    edited = cell(replace(CONTEXT, variant="wise_ft:0.5"), [0, 0])
    rows = score_rows([edited, cell(CONTEXT, [1, 0])])
    assert rows["delta"].tolist() == [pd.NA, -0.5]


def test_an_unparsed_answer_is_wrong_and_counted() -> None:
    view = cell(CONTEXT, [1, 0, 0, 0])
    view.frame.loc[3, "parsed"] = pd.NA
    row = score_rows([view]).iloc[0]
    assert (row["value"], row["unparsed"]) == (0.25, 0.25)


def test_thoughts_without_an_end_are_counted_where_text_was_written() -> None:
    written, chosen, older = (cell(CONTEXT, [1, 0, 0, 0]) for _ in range(3))
    written.frame["cut_off"] = [False, True, True, False]
    chosen.frame["cut_off"] = [None] * 4
    counts = [score_rows([view]).iloc[0]["cut_off"] for view in (written, chosen, older)]
    assert counts[0] == 2
    assert pd.isna(counts[1:]).all()


def test_clusters_are_counted_by_their_labels() -> None:
    clusters = [["image=a"], ["image=a"], ["image=b"], ["image=b"]]
    row = score_rows([cell(CONTEXT, [1, 1, 0, 0], clusters)]).iloc[0]
    assert (row["n"], row["n_clusters"]) == (4, 2)
    # Residual sums +1 and -1: SE = sqrt(2/1 * 2) / 4.
    assert row["stderr"] == pytest.approx(0.5)


def test_the_probe_counts_answers_that_name_the_class() -> None:
    nowhere = Placement(Axis.ood, Axis.id, "", seen_in_mix=False)
    base = cell(replace(CONTEXT, dataset="probe", probe=True, placement=nowhere), [1, 1, 0, 0])
    trained = cell(replace(TRAINED, dataset="probe", probe=True, placement=nowhere), [1, 0, 0, 0])
    base.frame.loc[2, "parsed"] = "C"
    trained.frame.loc[[1, 2], "parsed"] = "C"
    trained.frame.loc[3, "parsed"] = pd.NA
    rows = score_rows([base, trained]).query("step == 100").set_index("metric")
    assert rows["value"].to_dict() == {
        "accuracy": 0.25, "mischoice": 0.5, "mischoice_of_wrong": pytest.approx(2 / 3),
    }  # fmt: skip
    assert rows["delta"].to_dict() == {
        "accuracy": -0.25, "mischoice": 0.25, "mischoice_of_wrong": pytest.approx(2 / 3 - 1 / 2),
    }  # fmt: skip
    assert rows["n"].to_dict() == {"accuracy": 4, "mischoice": 4, "mischoice_of_wrong": 3}
    assert rows["chance"].isna().to_dict()["mischoice"]
    assert rows["forgotten"].isna().tolist() == [False, True, True]
    assert matrix_rows([base, trained]).empty


def test_unlettered_probe_answers_are_compared_as_words() -> None:
    view = cell(replace(CONTEXT, probe=True), [0, 0])
    words = view.frame.assign(kind="option", target="red", parsed=["dress", "blue"])
    rows = score_rows([replace(view, frame=words)]).set_index("metric")
    assert rows.loc["mischoice", "value"] == 0.5


def quadrant(step: RowContext, first: list[int], second: list[int], **change: object) -> list[CellView]:
    context = replace(step, placement=OTHER_TEXT, **change)  # type: ignore[arg-type]
    images = [[f"image={i}"] for i in range(4)]
    return [
        cell(replace(context, dataset="colour"), first, images[: len(first)]),
        cell(replace(context, dataset="season"), second, images[: len(second)]),
    ]


def test_a_quadrant_is_the_mean_of_dataset_means_clustered_over_shared_images() -> None:
    rows = matrix_rows(quadrant(CONTEXT, [1, 1], [1, 1, 1, 0]) + quadrant(TRAINED, [0, 1], [0, 1, 1, 1]))
    base, trained = rows.to_dict("records")
    assert (base["value"], trained["value"]) == (0.875, 0.625)
    assert (trained["n_datasets"], trained["n"], trained["delta"]) == (2, 6, -0.25)
    # Changes -1 0 | -1 0 0 1: influences -1/8 1/8 | -1/8 0 0 1/8, times the root of C / (C - 1), summed by image.
    two, four = 2**0.5, (4 / 3) ** 0.5
    assert trained["delta_stderr"] == pytest.approx(((two + four) ** 2 + two**2 + four**2) ** 0.5 / 8)


def test_a_dataset_seen_in_the_mix_has_its_own_quadrant_row() -> None:
    first, second = quadrant(CONTEXT, [1, 1], [0, 0])
    seen = replace(second.context, placement=replace(OTHER_TEXT, seen_in_mix=True))
    rows = matrix_rows([replace(second, context=seen), first])
    assert rows[["seen_in_mix", "value"]].values.tolist() == [[False, 1.0], [True, 0.0]]


def test_a_quadrant_of_one_dataset_has_that_datasets_interval() -> None:
    cells = [cell(CONTEXT, [1, 1, 1, 0])]
    columns = ["value", "stderr", "ci_low", "ci_high"]
    pd.testing.assert_frame_equal(matrix_rows(cells)[columns], score_rows(cells)[columns])


def test_a_dataset_without_items_is_absent_not_zero() -> None:
    empty = cell(replace(CONTEXT, dataset="nothing"), [])
    row = score_rows([empty]).iloc[0]
    assert row["n"] == 0
    assert pd.isna(row["value"])
    assert matrix_rows([empty]).empty


def test_a_quadrant_with_a_missing_base_has_no_delta() -> None:
    row = matrix_rows(quadrant(CONTEXT, [1, 1], [1, 1])[:1] + quadrant(TRAINED, [1, 0], [0, 0])).iloc[1]
    assert row["n_datasets"] == 2
    assert pd.isna(row["delta"])
    assert pd.isna(row["base_value"])


def test_rows_do_not_depend_on_the_order_of_cells() -> None:
    cells = quadrant(CONTEXT, [1, 1], [1, 0]) + quadrant(TRAINED, [0, 1], [0, 0])
    pd.testing.assert_frame_equal(score_rows(cells), score_rows(cells[::-1]))
    pd.testing.assert_frame_equal(matrix_rows(cells), matrix_rows(cells[::-1]))


def test_csv_floats_are_exact_and_absent_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.csv"
    write_csv(score_rows([cell(CONTEXT, [1, 0, 0])]), path)
    header, line = path.read_text().splitlines()
    row = dict(zip(header.split(","), line.split(","), strict=True))
    assert row["value"] == "0.3333333333333333"
    assert (row["lr"], row["n"], row["seen_in_mix"]) == ("1e-05", "3", "False")
    assert (row["delta"], row["p_holm"], row["variant"], row["mix_ratio"]) == ("", "", "", "")
    assert [file.name for file in path.parent.iterdir()] == ["scores.csv"]


def test_a_failed_write_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_csv(pd.DataFrame({"a": [1]}), path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["scores.csv"]


def test_holm_adjusts_the_off_target_rows_of_the_last_checkpoint_and_of_each_variant() -> None:
    places = {"naming": TARGET, "facts": OTHER_TEXT, "digits": replace(OTHER_TEXT, quadrant="ood_text-ood_image")}
    middle = replace(TRAINED, checkpoint="step_000050", step=50)
    edited = replace(TRAINED, checkpoint="step_000100@wise_ft-0.5", variant="wise_ft:0.5")
    cells = [
        cell(replace(context, dataset=name, placement=place), right)
        for name, place in places.items()
        for context, right in (
            (CONTEXT, [1] * 12),
            (middle, [0] * 12),
            (TRAINED, [0] * 8 + [1] * 4 if name == "facts" else [0] * 6 + [1] * 6),
            (edited, [0] * 7 + [1] * 5),
        )
    ]
    scores = score_rows(cells).set_index(["dataset", "checkpoint"])
    half, two_thirds, seven = 2 / 2**6, 2 / 2**8, 2 / 2**7
    assert scores.loc[("facts", TRAINED.checkpoint), ["p_value", "p_holm"]].tolist() == [two_thirds, 2 * two_thirds]
    assert scores.loc[("digits", TRAINED.checkpoint), ["p_value", "p_holm"]].tolist() == [half, half]
    assert scores.loc[("digits", edited.checkpoint), ["p_value", "p_holm"]].tolist() == [seven, 2 * seven]
    assert scores.loc[("naming", TRAINED.checkpoint), "p_value"] == half
    absent = scores.loc[[("naming", TRAINED.checkpoint), ("facts", middle.checkpoint), ("facts", "base")], "p_holm"]
    assert absent.isna().all()
    matrix = matrix_rows(cells).set_index(["quadrant", "checkpoint"])
    assert matrix.loc[("ood_text-id_image", TRAINED.checkpoint), "p_holm"] == 2 * two_thirds
    assert pd.isna(matrix.loc[("id_text-id_image", TRAINED.checkpoint), "p_holm"])
