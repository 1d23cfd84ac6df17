"""Measures of continual learning, against matrices worked by hand and published rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from forgetbench.config import Training
from forgetbench.core.records import Metric
from forgetbench.reporting.published import PUBLISHED
from forgetbench.tables.cell_view import CellView
from forgetbench.tables.continual import CONTINUAL_COLUMNS, continual_rows
from forgetbench.tables.continual_run import MEASURES, ContinualRun, continual_run
from forgetbench.tables.continual_strategies import STRATEGY_COLUMNS, strategy_rows
from forgetbench.tables.scores import score_rows
from tests.support.cell_views import CONTEXT, cell

TASKS = ("a", "b", "c")
MATRIX = [[20, 30, 40], [80, 35, 35], [60, 90, 45], [50, 70, 95]]
"""Percent right on a, b and c: the base, then after each of three stages."""
N = 20


def right(percent: int, task: str = "", noise: int = 0) -> list[int]:
    """Which of 20 items are right: the first ones, or shuffled by task and noise."""
    items = [int(100 * i < percent * N) for i in range(N)]
    if noise:
        random.Random(f"{task}{noise}").shuffle(items)
    return items


def view(stage: int, task: str, correct: list[int], tasks: Sequence[str] = TASKS, **changes: object) -> CellView:
    step, target = 100 * stage, tasks[stage - 1] if stage else tasks[0]
    context = replace(CONTEXT, stage=stage, step=step, target=target, dataset=task, run="demo", checkpoint=f"s{step}")
    return cell(replace(context, **changes), correct)  # type: ignore[arg-type]


def views(matrix: Sequence[Sequence[int]] = MATRIX, tasks: Sequence[str] = TASKS, **changes: object) -> list[CellView]:
    return [
        view(stage, task, right(percent), tasks, **changes)
        for stage, row in enumerate(matrix)
        for task, percent in zip(tasks, row, strict=True)
    ]


def measured(rows: pd.DataFrame) -> dict[str, float]:
    measures = rows[rows["measure"] != "score"]
    return dict(zip(measures["measure"], measures["value"], strict=True))


def row(rows: pd.DataFrame, **wanted: object) -> pd.Series:
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    (only,) = rows.to_dict("records")
    return pd.Series(only)


def test_all_six_measures_of_a_matrix_worked_by_hand() -> None:
    rows = continual_rows(views(), TASKS, "seq_full")
    assert measured(rows) == pytest.approx(
        {
            "MFT": (0.8 + 0.9 + 0.95) / 3,
            "MFN": (0.5 + 0.7 + 0.95) / 3,
            "MAA": (0.8 + (0.6 + 0.9) / 2 + (0.5 + 0.7 + 0.95) / 3) / 3,
            "BWT": ((0.5 - 0.8) + (0.7 - 0.9)) / 2,
            "FWT": ((0.35 - 0.3) + (0.45 - 0.4)) / 2,
            "forgetting": ((0.8 - 0.5) + (0.9 - 0.7)) / 2,
        }
    )
    assert tuple(rows) == CONTINUAL_COLUMNS
    assert set(rows["tasks"]) == {"a>b>c"}


def test_forgetting_is_from_the_best_stage_before_the_last_and_not_from_the_stage_of_the_task() -> None:
    matrix = [[20, 30, 40], [80, 95, 35], [85, 90, 45], [50, 70, 95]]
    measures = measured(continual_rows(views(matrix), TASKS, ""))
    assert measures["forgetting"] == pytest.approx(((0.85 - 0.5) + (0.95 - 0.7)) / 2)
    assert measures["BWT"] == pytest.approx(((0.5 - 0.8) + (0.7 - 0.9)) / 2)


@pytest.mark.parametrize("method", PUBLISHED, ids=lambda method: method.name)
def test_published_bwt_follows_from_published_mft_and_mfn(method) -> None:  # type: ignore[no-untyped-def]
    # Of T tasks the last one's final score is its own: BWT = (MFN - MFT) T / (T - 1), here (53.00 - 64.98) * 5/4.
    assert (method.mfn - method.mft) * 5 / 4 == pytest.approx(method.bwt, abs=0.02)


def test_our_bwt_has_the_factor_of_the_published_one() -> None:
    measures = measured(continual_rows(views(), TASKS, ""))
    assert measures["BWT"] == pytest.approx((measures["MFN"] - measures["MFT"]) * 3 / 2)


def test_scores_have_the_values_and_intervals_of_the_score_table() -> None:
    scored = score_rows(views()).set_index(["step", "dataset"])
    rows = continual_rows(views(), TASKS, "")
    for score in rows[rows["measure"] == "score"].to_dict("records"):
        other = scored.loc[(score["step"], score["task"])]
        for column in ("value", "stderr", "ci_low", "ci_high", "n", "n_clusters", "metric"):
            assert score[column] == other[column]
    scores = rows[rows["measure"] == "score"].set_index(["stage", "task"])
    assert list(scores["relation"]) == ["base"] * 3 + ["current", "future", "future", "past", "current", "future"] + [
        "past", "past", "current",
    ]  # fmt: skip
    assert list(scores["trained"]) == [""] * 3 + ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert list(scores["position"]) == [1, 2, 3] * 4


def test_only_the_last_step_of_a_stage_counts_and_no_variant_of_it() -> None:
    early = [view(2, task, right(1), step=150) for task in TASKS]
    merged = [view(3, task, right(2), variant="wise_ft") for task in TASKS]
    expected = continual_rows(views(), TASKS, "")
    pd.testing.assert_frame_equal(continual_rows([*early, *views(), *merged], TASKS, ""), expected)


def test_the_error_of_bwt_is_of_the_change_of_each_item_with_tasks_as_strata() -> None:
    draw = np.random.default_rng(0)
    cells = {(t, task): (draw.random(N) < 0.6).astype(int).tolist() for t in range(4) for task in TASKS}
    bwt = row(
        continual_rows([view(t, task, item_scores) for (t, task), item_scores in cells.items()], TASKS, ""),
        measure="BWT",
    )
    changes = [np.subtract(cells[3, task], cells[t, task]) for t, task in ((1, "a"), (2, "b"))]
    assert bwt["stderr"] == pytest.approx(np.sqrt(sum(change.var(ddof=1) / N for change in changes)) / 2)
    assert (bwt["n"], bwt["n_clusters"]) == (40, 40)  # the last task adds nothing, so that it is not counted


def test_the_error_of_maa_is_that_of_an_independent_jackknife() -> None:
    draw = np.random.default_rng(1)
    labels = [[f"image={i // 4}"] for i in range(40)]  # shared by all tasks
    cells = {(t, task): (draw.random(40) < 0.6).astype(int) for t in range(4) for task in TASKS}
    context = replace(CONTEXT, run="demo")
    made = [
        cell(replace(context, stage=t, step=t, dataset=task, target=TASKS[max(0, t - 1)]), item_scores.tolist(), labels)
        for (t, task), item_scores in cells.items()
    ]
    row_of_maa = row(continual_rows(made, TASKS, ""), measure="MAA")

    def maa(kept: np.ndarray) -> float:
        return float(np.mean([np.mean([cells[t, task][kept].mean() for task in TASKS[:t]]) for t in (1, 2, 3)]))

    cluster = np.arange(40) // 4
    left_out = np.array([maa(cluster != left_out_cluster) for left_out_cluster in range(10)])
    assert row_of_maa["value"] == pytest.approx(maa(np.ones(40, dtype=bool)))
    assert row_of_maa["stderr"] == pytest.approx(np.sqrt(0.9 * np.square(left_out - left_out.mean()).sum()))
    assert (row_of_maa["n"], row_of_maa["n_clusters"]) == (120, 10)


def test_final_scores_of_one_task_have_the_interval_of_its_score() -> None:
    rows = continual_rows([view(t, "a", right(p), ("a",)) for t, p in enumerate((20, 80))], ("a",), "")
    assert measured(rows) == pytest.approx({"MFT": 0.8, "MFN": 0.8, "MAA": 0.8})
    score, final = row(rows, measure="score", stage=1), row(rows, measure="MFN")
    assert (final["ci_low"], final["ci_high"]) == (score["ci_low"], score["ci_high"])


def test_where_no_item_varies_the_interval_is_what_the_items_leave_open() -> None:
    rows = continual_rows(views([[100] * 3] * 4), TASKS, "")
    final, backward, average = (row(rows, measure=measure) for measure in ("MFN", "BWT", "MAA"))
    assert final["ci_low"] < 1 == final["ci_high"]
    assert backward["ci_low"] < 0 < backward["ci_high"]
    assert average["value"] == pytest.approx(1)
    assert pd.isna(average["ci_low"])


def test_a_joint_run_has_a_final_score_only() -> None:
    matrix = [[20, 30, 40], [80, 60, 70]]
    joint = [
        view(t, task, right(p), step=100 * t, target="a+b+c")
        for t, scores in enumerate(matrix)
        for task, p in zip(TASKS, scores, strict=True)
    ]
    rows = continual_rows(joint, TASKS, "joint")
    assert measured(rows) == pytest.approx({"MFN": 0.7})
    assert set(rows[rows["stage"] == 1]["relation"]) == {"joint"}


def test_an_untrained_model_has_the_base_as_its_final_score() -> None:
    rows = continual_rows(views(MATRIX[:1]), TASKS, "zero_shot")
    assert measured(rows) == pytest.approx({"MFN": 0.3})
    assert set(rows[rows["measure"] == "score"]["relation"]) == {"base"}


def test_a_sequence_of_which_only_the_base_is_scored_is_not_taken_for_an_untrained_model() -> None:
    assert measured(continual_rows(views(MATRIX[:1]), TASKS, "seq_full", training=Training.sequence)) == {}


@pytest.mark.parametrize(
    ("stage", "task", "absent"),
    [
        (0, "b", {"FWT"}),
        (0, "a", set()),
        (1, "b", {"FWT", "forgetting"}),
        (1, "a", {"MFT", "MAA", "BWT", "forgetting"}),
        (3, "a", {"MFN", "MAA", "BWT", "forgetting"}),
        (3, "c", {"MFT", "MFN", "MAA"}),
    ],
)
def test_measures_without_a_cell_that_they_need_are_absent(stage: int, task: str, absent: set[str]) -> None:
    kept = [cell_view for cell_view in views() if (cell_view.context.stage, cell_view.context.dataset) != (stage, task)]
    rows = continual_rows(kept, TASKS, "")
    assert set(measured(rows)) == set(MEASURES) - absent
    assert (rows["measure"] == "score").sum() == 11


def test_tasks_on_different_scales_have_no_mean() -> None:
    mixed = [
        replace(cell_view, context=replace(cell_view.context, metric=Metric.cider_d))
        if cell_view.context.dataset == "b"
        else cell_view
        for cell_view in views()
    ]
    rows = continual_rows(mixed, TASKS, "")
    assert measured(rows) == {}
    assert (rows["measure"] == "score").sum() == 12


def test_cells_of_other_items_do_not_pair() -> None:
    odd = [cell_view for cell_view in views() if (cell_view.context.stage, cell_view.context.dataset) != (3, "a")]
    rows = continual_rows([*odd, view(3, "a", right(50)[:12])], TASKS, "")
    assert set(measured(rows)) == {"MFT", "FWT"}


def test_a_task_that_comes_back_leaves_the_measures_undefined() -> None:
    rows = continual_rows(views(), ("a", "b", "a"), "")
    assert measured(rows) == {}
    assert (rows["measure"] == "score").sum() == 8


def run(order: Sequence[str], seed: int, level: int, noise: int = 0, forgets: int = 10) -> ContinualRun:
    """A run that learns each task to a level and loses some points of it at every later stage."""
    cells = []
    for stage in range(4):
        for place, task in enumerate(order, 1):
            percent = 30 if stage < place else level - forgets * (stage - place)
            cells.append(view(stage, task, right(percent, task, noise), order, seed=seed))
    continual = continual_run(cells, order, "any")
    assert continual is not None
    return continual


ORDERS = (("a", "b", "c"), ("c", "a", "b"))


def runs(level: int, noise: int = 0, **changes: int) -> list[ContinualRun]:
    return [
        run(order, seed, level + 5 * seed, noise + seed if noise else 0, **changes)
        for order in ORDERS
        for seed in (0, 1)
    ]


def joint(seed: int, percent: int) -> ContinualRun:
    cells = [view(0, task, right(30), seed=seed) for task in TASKS]
    cells += [view(1, task, right(percent), seed=seed, target="a+b+c") for task in TASKS]
    continual = continual_run(cells, TASKS, "joint")
    assert continual is not None
    return continual


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    base = continual_run(views(MATRIX[:1]), TASKS, "zero_shot")
    assert base is not None
    return strategy_rows(
        {
            "seq_full": runs(70, noise=1),
            "hybrid": runs(75, noise=1),
            "twin": runs(75, noise=1),
            "ewc": runs(80, noise=1),
            "short": runs(80, noise=1)[:2],
            "joint": [joint(0, 85), joint(1, 95)],
            "zero_shot": [base],
        }
    )


def test_a_strategy_has_the_mean_over_its_orders_and_seeds(table: pd.DataFrame) -> None:
    assert tuple(table) == STRATEGY_COLUMNS
    final, backward = (row(table, strategy="ewc", measure=measure) for measure in ("MFN", "BWT"))
    assert final["value"] == pytest.approx(0.725)
    assert backward["value"] == pytest.approx(-0.15)
    assert (final["n_runs"], final["n_orders"], final["n_seeds"], final["n_tasks"]) == (4, 2, 2, 3)
    assert final["run_sd"] == pytest.approx(np.std([0.7, 0.75, 0.7, 0.75], ddof=1))
    assert final["ci_low"] < final["value"] < final["ci_high"]


def test_the_order_in_which_runs_and_cells_are_named_does_not_change_a_strategy() -> None:
    moved = [
        replace(continual, cells=dict(reversed(list(continual.cells.items())))) for continual in reversed(runs(80))
    ]
    pd.testing.assert_frame_equal(strategy_rows({"ours": moved}), strategy_rows({"ours": runs(80)}))


def test_the_order_of_the_tasks_changes_no_measure_that_no_place_in_it_changes() -> None:
    # The same scores by place in the sequence, whichever task is there.
    table = strategy_rows({"one": [run(ORDERS[0], 0, 80)], "other": [run(ORDERS[1], 0, 80)]})
    first_values, second_values = (table[table["strategy"] == name]["value"].tolist() for name in ("one", "other"))
    assert first_values == pytest.approx(second_values)


def test_a_single_run_has_the_intervals_of_its_own_table() -> None:
    cells = views()
    only = continual_run(cells, TASKS, "seq_full")
    assert only is not None
    table, run_rows = strategy_rows({"seq_full": [only]}), continual_rows(cells, TASKS, "seq_full")
    for measure in MEASURES:
        for column in ("value", "stderr", "ci_low", "ci_high"):
            assert row(table, measure=measure)[column] == row(run_rows, measure=measure)[column]


def test_strategies_with_the_same_answers_do_not_differ(table: pd.DataFrame) -> None:
    twin = table[table["strategy"] == "twin"]
    assert twin["diff"].tolist() == [0.0] * 6
    assert twin["p_value"].tolist() == [1.0] * 6
    assert table[table["strategy"] == "hybrid"]["diff"].isna().tolist() == [True] * 6


def test_pairing_by_item_makes_a_difference_surer_than_its_two_sides(table: pd.DataFrame) -> None:
    better, base = (row(table, strategy=name, measure="MFN") for name in ("ewc", "hybrid"))
    assert better["diff"] == pytest.approx(0.05)
    assert better["diff_stderr"] < 0.8 * np.hypot(better["stderr"], base["stderr"])


def test_items_of_any_order_still_pair() -> None:
    def shuffled(cell_view: CellView) -> CellView:
        return replace(cell_view, frame=cell_view.frame.sample(frac=1, random_state=3).reset_index(drop=True))

    plain, other = run(TASKS, 0, 70, noise=1), run(TASKS, 0, 75, noise=2)
    mixed = replace(other, cells={place: shuffled(cell_view) for place, cell_view in other.cells.items()})
    first, second = (strategy_rows({"seq_full": [plain], "other": [paired_runs]}) for paired_runs in (other, mixed))
    kept = ["value", "item_stderr", "diff", "diff_stderr"]
    np.testing.assert_allclose(first[kept].to_numpy(float), second[kept].to_numpy(float), rtol=1e-9)


def test_strategies_without_the_same_runs_are_not_compared(table: pd.DataFrame) -> None:
    short = table[table["strategy"] == "short"]
    assert short["diff"].isna().tolist() == [True] * 6
    assert short["n_runs"].tolist() == [2] * 6


def test_bounds_meet_the_runs_that_they_bound(table: pd.DataFrame) -> None:
    assert set(table[table["strategy"] == "joint"]["measure"]) == {"MFN"}
    upper, lower = (row(table, strategy=name, measure="MFN") for name in ("joint", "zero_shot"))
    assert upper["diff"] == pytest.approx(0.9 - 0.675)
    assert lower["diff"] == pytest.approx(0.3 - 0.675)
    assert pd.isna(upper["n_orders"])
    assert pd.isna(lower["n_seeds"])


def test_the_reference_is_the_best_simple_strategy_and_looking_for_it_is_paid_for(table: pd.DataFrame) -> None:
    assert set(table["reference"]) == {"", "hybrid"}
    final = table[table["measure"] == "MFN"]
    pairs = 6 + 5  # of two simple strategies with seven in all
    assert final["p_holm"].min() == pytest.approx(min(1, pairs * final["p_value"].min()))


def test_differing_orders_of_one_strategy_leave_no_task_out_of_bwt() -> None:
    table = strategy_rows({"ours": [run(order, 0, 80) for order in ORDERS]})
    values = [measured(continual_rows(list(continual.cells.values()), continual.tasks, ""))["BWT"] for continual in
              (run(order, 0, 80) for order in ORDERS)]  # fmt: skip
    assert row(table, measure="BWT")["value"] == pytest.approx(np.mean(values))
    assert row(table, measure="BWT")["item_stderr"] >= 0
