"""guard.csv from answers: losses by quadrant and in their mean, what followed, and where a run ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from forgetbench.statistics.sequential import Budget
from forgetbench.tables.guard import GUARD_COLUMNS, Look, ending, groups_of, guard_rows, loss
from forgetbench.terminal.guard import cost_line, ending_line, short_ending
from tests.support.cell_views import CONTEXT, TRAINED, cell

A, B = "id_text-ood_image", "ood_text-id_image"


def look(step: int, **right: tuple[int, int, int]) -> Look:
    """Of each dataset's n items, so many are right in the base and so many at the step."""
    cells = {}
    for name, (n, before, after) in right.items():
        base, now = replace(CONTEXT, dataset=name), replace(TRAINED, dataset=name)
        cells[name] = (cell(base, [int(i < before) for i in range(n)]), cell(now, [int(i < after) for i in range(n)]))
    return Look(stage=1, step=step, cells=cells)


def rows_of(*losses: dict[str, int], max_loss: float = 0.1, looks: int = 4) -> pd.DataFrame:
    """A look per mapping: 40 items of two sets, all right in the base, so many of them lost."""
    made = [look(10 * k, **{name: (40, 40, 40 - n) for name, n in lost.items()}) for k, lost in enumerate(losses, 1)]
    groups = groups_of({"digits": A, "facts": B}, in_mean=False)
    return guard_rows("run", made, groups, Budget(max_loss, 2, looks))


def test_datasets_of_a_quadrant_count_alike_and_one_in_none_stands_alone() -> None:
    quadrants = {"a": A, "b": A, "c": B, "d": ""}
    assert groups_of(quadrants, in_mean=False) == {A: {"a": 0.5, "b": 0.5}, B: {"c": 1.0}, "d": {"d": 1.0}}


def test_in_the_mean_every_quadrant_counts_alike() -> None:
    (weights,) = groups_of({"a": A, "b": A, "c": B}, in_mean=True).values()
    assert weights == {"a": 0.25, "b": 0.25, "c": 0.5}


def test_a_loss_is_the_weighted_mean_over_datasets_of_what_their_items_lost() -> None:
    cells = look(1, a=(10, 8, 4), b=(20, 10, 15)).cells
    estimate = loss(cells, {"a": 0.25, "b": 0.75})
    assert estimate.value == pytest.approx(0.25 * 0.4 - 0.75 * 0.25)
    assert estimate.n == 30


def test_a_row_says_what_was_seen_what_it_showed_and_what_it_spent() -> None:
    rows = rows_of({"digits": 2, "facts": 6})
    assert tuple(rows.columns) == GUARD_COLUMNS
    assert rows["group"].tolist() == [A, B]
    assert rows["loss"].tolist() == [0.05, 0.15]
    assert rows["over"].tolist() == [False, True]
    assert rows["broken"].tolist() == [False, False]
    assert rows["level"].tolist() == [0.05 / 8] * 2
    assert rows["spent"].tolist() == [0.0125] * 2
    assert (rows["low"] < rows["loss"]).all()
    assert (rows["loss"] < rows["high"]).all()


def test_a_run_that_is_shown_to_lose_more_stops_and_ends_on_the_last_look_within_its_budget() -> None:
    kept, over, broken = ({"digits": 0, "facts": n} for n in (1, 6, 20))
    rows = rows_of(kept, over, broken, kept)
    assert rows["step"].tolist() == [10, 10, 20, 20, 30, 30]
    assert rows["decision"].tolist() == ["go on"] * 4 + ["stop"] * 2
    outcome = ending(rows)
    assert outcome is not None
    assert (outcome.step, outcome.last_look, outcome.is_stopped, outcome.broken) == (10, 30, True, B)
    assert short_ending(outcome) == "stopped at 30 by its budget"
    assert "run: stopped after step 30: OOD text, ID image lost 50.0 points, at least 2" in ending_line("run", outcome)


def test_a_run_that_goes_on_has_no_ending() -> None:
    assert ending(rows_of({"digits": 0, "facts": 0})) is None
    assert ending(pd.DataFrame(columns=list(GUARD_COLUMNS))) is None


def test_a_last_checkpoint_over_the_budget_is_not_the_last_of_the_run() -> None:
    outcome = ending(rows_of({"digits": 0, "facts": 0}, {"digits": 6, "facts": 0}, looks=2))
    assert outcome is not None
    assert (outcome.step, outcome.last_look, outcome.is_stopped) == (10, 20, False)
    assert "which is over its budget of 10 points, though not shown to be" in ending_line("run", outcome)
    assert short_ending(outcome) == "over budget at its end"


@pytest.mark.parametrize(
    ("max_loss", "is_within_budget", "said"), [(0.5, True, "its upper bounds are, too"), (0.05, False, "is not shown")]
)
def test_a_run_within_its_budget_says_whether_that_is_shown(max_loss: float, is_within_budget: bool, said: str) -> None:
    outcome = ending(rows_of({"digits": 1, "facts": 0}, max_loss=max_loss, looks=1))
    assert outcome is not None
    assert (outcome.step, outcome.is_within_budget) == (10, is_within_budget)
    assert said in ending_line("run", outcome)
    assert short_ending(outcome) == ""


def test_a_run_without_a_look_within_its_budget_ends_on_the_base() -> None:
    outcome = ending(rows_of({"digits": 0, "facts": 20}))
    assert outcome is not None
    assert outcome.step == 0
    assert "ends on the untouched base" in ending_line("run", outcome)


def test_rows_read_back_from_the_file_end_alike(tmp_path: Path) -> None:
    rows = rows_of({"digits": 0, "facts": 1}, {"digits": 0, "facts": 20})
    rows.to_csv(tmp_path / "guard.csv", index=False)
    assert ending(pd.read_csv(tmp_path / "guard.csv")) == ending(rows)


def test_what_looks_took_is_said_beside_the_steps_of_training() -> None:
    assert cost_line("run", 1.5, 30.0) == "run: guard: its looks took 1.5 s, 5% of the 30.0 s of its steps (guard.csv)."
    assert "%" not in cost_line("run", 1.5, 0.0)
