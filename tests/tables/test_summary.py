"""Tiny hand-made cells, hand-computed summaries; and agreement with the other two tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from forgetbench.core.records import Axis, Metric, Placement
from forgetbench.tables.cell_view import CellView, RowContext
from forgetbench.tables.scores import matrix_rows, score_rows
from forgetbench.tables.summary import SUMMARY_COLUMNS, summary_rows

TARGET = Placement(Axis.id, Axis.id, "id_text-id_image", seen_in_mix=False)
SOURCE = Placement(Axis.ood, Axis.id, "ood_text-id_image", seen_in_mix=False)
FAR = Placement(Axis.ood, Axis.ood, "ood_text-ood_image", seen_in_mix=False)
BASE = RowContext(
    run="demo", model="tiny", target="naming", checkpoint="base", variant="", method="plain", parts="language",
    lr=1e-5, mix="", mix_ratio=None, seed=0, stage=0, step=0, dataset="naming", image_domain="fashion",
    text_task="naming", placement=TARGET, probe=False, probe_of="", decoding="choice", metric=Metric.accuracy,
    labels=frozenset(), chance=0.25, seconds=1.5, cell="d0", settings="{}",
)  # fmt: skip
TRAINED = replace(BASE, checkpoint="step_000100", step=100, stage=1)


def cell(context: RowContext, scores: list[float], clusters: list[str] | None = None, **change: object) -> CellView:
    context = replace(context, **change)  # type: ignore[arg-type]
    n = len(scores)
    frame = pd.DataFrame(
        {
            "sample_id": [f"i{i}" for i in range(n)],
            "cluster": [[label] for label in clusters] if clusters else [[] for _ in range(n)],
            "image_sha256": [label[6:] if label.startswith("image=") else "" for label in clusters or [""] * n],
            "options": [[]] * n,
            "target": ["A"] * n,
            "parsed": ["A"] * n,
            "kind": ["text"] * n,
            "references": [["A"]] * n,
            "option_logprobs": [None] * n,
            "text": [None] * n,
            "score": scores,
            "class_option": pd.array([None] * n, dtype="Int64"),
        }
    )
    return CellView(frame, context)


def both(
    before: list[float], after: list[float], clusters: list[str] | None = None, **change: object
) -> list[CellView]:
    return [cell(BASE, before, clusters, **change), cell(TRAINED, after, clusters, **change)]


def only(cells: list[CellView]) -> dict[str, object]:
    (row,) = summary_rows(cells).to_dict("records")
    return row


NAMING = both([0, 0, 0, 1], [1, 1, 1, 1])
SEASON = both([1, 1, 1, 0], [1, 0, 1, 0], dataset="season", placement=SOURCE)
DIGITS = both([1, 0], [0, 0], dataset="digits", placement=FAR)


def test_columns_are_the_public_interface_in_order() -> None:
    assert ",".join(summary_rows([]).columns) == ",".join(SUMMARY_COLUMNS)
    assert ",".join(SUMMARY_COLUMNS) == (
        "run,model,target,checkpoint,variant,method,parts,lr,mix,mix_ratio,seed,stage,step,decoding,n_sources,A_T,A_S,"
        "H,O,target_base,target_delta,target_delta_stderr,target_delta_ci_low,target_delta_ci_high,source_base,"
        "source_delta,source_delta_stderr,source_delta_ci_low,source_delta_ci_high,retention,retention_ci_low,"
        "retention_ci_high"
    )


def test_the_scores_by_hand() -> None:
    row = only([*NAMING, *SEASON, *DIGITS])
    # Sources: 2/4 and 0/2 now, 3/4 and 1/2 before, the two datasets of equal weight whatever their size.
    assert (row["A_T"], row["A_S"], row["n_sources"], row["checkpoint"]) == (1, 0.25, 2, "step_000100")
    assert (row["H"], row["O"]) == (pytest.approx(2 * 0.25 / 1.25), 0.625)
    assert (row["target_base"], row["target_delta"]) == (0.25, 0.75)
    assert (row["source_base"], row["source_delta"]) == (0.625, -0.375)
    assert row["retention"] == pytest.approx(0.4)
    # Target changes 1 1 1 0: residuals 1/4 1/4 1/4 -3/4; SE = sqrt(4/3 * 12/16) / 4 = 1/4.
    assert row["target_delta_stderr"] == pytest.approx(0.25)
    # Source changes 0 -1 0 0 | -1 0 less their set's mean, over 8 | 4: squares 12/16/64 | 1/2/16; C = 4 | 2.
    assert row["source_delta_stderr"] == pytest.approx((4 / 3 * 3 / 256 + 2 * 8 / 256) ** 0.5)
    # after - 0.4 before: .6 -.4 .6 0 | -.4 0; less .2 | -.2, over 8 | 4: squares .72/64 + .08/16; over the base .625.
    variances = 4 / 3 * 0.72 / 64, 2 * 0.08 / 16
    df = sum(variances) ** 2 / (variances[0] ** 2 / 3 + variances[1] ** 2)
    half = stats.t.ppf(0.975, df) * sum(variances) ** 0.5 / 0.625
    assert row["retention_ci_low"] == 0 > 0.4 - half
    assert row["retention_ci_high"] == pytest.approx(0.4 + half)


def test_it_agrees_with_scores_and_matrix_where_they_coincide() -> None:
    images = [f"image={i % 3}" for i in range(7)]
    random = np.random.default_rng(3)
    draw = [[float(v) for v in random.integers(0, 2, 7)] for _ in range(6)]
    naming = both(draw[0], draw[1], images)
    sources = both(draw[2], draw[3], images, dataset="season", placement=SOURCE)
    sources += both(draw[4], draw[5], images, dataset="colour", placement=SOURCE)
    row = only([*naming, *sources])
    columns = ("base_value", "delta", "delta_stderr", "delta_ci_low", "delta_ci_high")
    names = ("base", "delta", "delta_stderr", "delta_ci_low", "delta_ci_high")
    target, source = (table.iloc[-1] for table in (score_rows(naming), matrix_rows(sources)))
    assert (row["A_T"], row["A_S"]) == (target["value"], source["value"])
    assert [row[f"target_{name}"] for name in names] == [target[column] for column in columns]
    assert [row[f"source_{name}"] for name in names] == [source[column] for column in columns]


def test_the_error_of_retention_is_that_of_leaving_one_cluster_out_in_turn() -> None:
    random = np.random.default_rng(0)
    values = random.uniform(0, 1, (2, 2, 240))  # dataset, before and after, items of 60 facts
    values[:, 1] = 0.8 * values[:, 0] * np.repeat(random.uniform(0.5, 1.5, 60), 4)
    facts = np.repeat(np.arange(60), 4)
    cells = [
        view
        for name, (before, after) in zip(("season", "colour"), values, strict=True)
        for view in both(before.tolist(), after.tolist(), [f"fact={k}" for k in facts], dataset=name, placement=SOURCE)
    ]
    means = [values[..., facts != k].mean((0, 2)) for k in range(60)]
    left_out = np.array([after / before for before, after in means])
    stderr = np.sqrt(59 / 60 * ((left_out - left_out.mean()) ** 2).sum())
    row = only(cells)
    assert row["retention"] == pytest.approx(values[:, 1].mean() / values[:, 0].mean())
    width = row["retention_ci_high"] - row["retention_ci_low"]  # type: ignore[operator]
    assert width == pytest.approx(2 * stats.t.ppf(0.975, 59) * stderr, rel=0.02)


@pytest.mark.parametrize(
    "change",
    [
        {"placement": TARGET, "dataset": "shifted"},
        {"placement": replace(SOURCE, seen_in_mix=True)},
        {"placement": Placement(Axis.partial, Axis.id, "", seen_in_mix=False)},
        {"placement": SOURCE, "probe": True},
        {"placement": SOURCE, "metric": Metric.cider_d},
    ],
)
def test_what_is_no_source_changes_nothing(change: dict[str, object]) -> None:
    further = both([1, 1], [0, 0], **{"dataset": "further", **change})
    assert only([*NAMING, *SEASON, *further]) == pytest.approx(only([*NAMING, *SEASON]), nan_ok=True)


def test_a_caption_target_keeps_its_own_scale() -> None:
    row = only([*both([0.2, 0.4], [1.0, 1.4], metric=Metric.cider_d), *SEASON])
    assert (row["A_T"], row["target_base"]) == (pytest.approx(1.2), pytest.approx(0.3))
    assert row["O"] == pytest.approx((1.2 + 0.5) / 2)


def test_an_absent_target_leaves_the_sources_and_nothing_of_both() -> None:
    row = only([*SEASON])
    assert (row["A_S"], row["source_delta"]) == (0.5, -0.25)
    assert all(pd.isna(row[name]) for name in ("A_T", "H", "O", "target_base", "target_delta", "target_delta_stderr"))


def test_an_absent_base_leaves_the_scores_and_no_comparison() -> None:
    row = only([*NAMING, *SEASON, DIGITS[1]])
    assert (row["A_T"], row["A_S"]) == (1, 0.25)
    compared = [name for name in SUMMARY_COLUMNS if name.startswith(("source_", "retention"))]
    assert len(compared) == 8
    assert all(pd.isna(row[name]) for name in compared)


def test_nothing_retained_of_nothing_is_absent() -> None:
    row = only([*NAMING, *both([0, 0], [0, 0], dataset="season", placement=SOURCE)])
    assert (row["A_S"], row["H"], row["source_delta"]) == (0, 0, 0)
    assert pd.isna(row["retention"])


def test_the_base_alone_has_scores_and_no_change() -> None:
    row = only([NAMING[0], SEASON[0]])
    assert (row["A_T"], row["A_S"], row["target_base"], row["source_base"]) == (0.25, 0.75, 0.25, 0.75)
    assert all(pd.isna(row[name]) for name in ("target_delta", "source_delta", "retention"))


def test_one_row_for_the_last_step_of_a_stage_each_variant_and_each_decoding() -> None:
    early = [cell(TRAINED, [0, 0, 0, 0], step=50, checkpoint="step_000050")]
    variant = [cell(TRAINED, [1, 0, 1, 1], variant="wise_ft:0.5")]
    written = [replace(view, context=replace(view.context, decoding="greedy")) for view in NAMING]
    second = [cell(TRAINED, [1, 1], stage=2, step=200, checkpoint="step_000200", target="season", dataset="season")]
    rows = summary_rows([*written, *second, *early, *variant, *NAMING])
    assert rows[["stage", "step", "variant", "decoding", "A_T"]].values.tolist() == [
        [1, 100, "", "choice", 1.0],
        [1, 100, "", "greedy", 1.0],
        [1, 100, "wise_ft:0.5", "choice", 0.75],
        [2, 200, "", "choice", 1.0],
    ]


def test_sets_that_are_trained_jointly_are_all_the_target_each_counted_once() -> None:
    joint = {"target": "naming+sums:few"}
    naming = both([0, 0, 0, 1], [1, 1, 1, 1], **joint)
    sums = both([0, 1], [1, 0], dataset="sums", **joint)
    season = both([1, 1, 1, 0], [1, 0, 1, 0], dataset="season", placement=SOURCE, **joint)
    row = only([*naming, *sums, *season])
    assert (row["A_T"], row["A_S"], row["n_sources"]) == (0.75, 0.5, 1)
    assert (row["target_base"], row["target_delta"]) == (0.375, 0.375)
    assert pd.isna(only([*naming, *season])["A_T"])  # one of them was not scored
    written = both([0, 4], [3, 5], dataset="sums", metric=Metric.cider_d, **joint)
    assert pd.isna(only([*naming, *written, *season])["A_T"])  # no mean of a CIDEr-D and an accuracy


def test_a_target_that_is_a_split_of_a_set_is_scored_on_the_set() -> None:
    assert only(both([0, 0], [1, 0], target="naming:few"))["A_T"] == 0.5
