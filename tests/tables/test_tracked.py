"""Scores as trackers take them."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from forgetbench.tables.tracked import guard_numbers, score_numbers
from tests.support.answered import FORGETS, answered_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("tracked") / "outputs"
    shares = {name: FORGETS[name] for name in ("fashion_naming", "fashion_knowledge")}
    return answered_run(outputs, "run", shares, limit=20, variants=("wise_ft-0.5",))


def test_every_number_of_the_matrix_has_a_name_and_its_step(run: Path) -> None:
    matrix, summary = (pd.read_csv(run / f"{name}.csv") for name in ("matrix", "summary"))
    numbers = score_numbers(matrix, summary)
    assert list(numbers) == [0, 10, 20]
    quadrant = matrix[(matrix["quadrant"] == "ood_text-id_image") & (matrix["step"] == 20)].set_index("checkpoint")
    name = "forgetbench/ood_text-id_image/choice"
    row = quadrant.loc["step_000020"]
    assert [numbers[20][f"{name}{end}"] for end in ("", "/delta", "/delta_ci_low", "/delta_ci_high")] == list(
        row[["value", "delta", "delta_ci_low", "delta_ci_high"]]
    )
    edited = quadrant.loc["step_000020@wise_ft-0.5"]
    assert numbers[20]["forgetbench/wise_ft-0.5/ood_text-id_image/choice"] == edited["value"]
    trained = summary[summary["variant"].isna()].iloc[0]
    assert numbers[20]["forgetbench/summary/choice/A_T"] == trained["A_T"]
    assert numbers[20]["forgetbench/summary/choice/retention"] == trained["retention"]


def test_what_is_absent_is_not_sent(run: Path) -> None:
    numbers = score_numbers(pd.read_csv(run / "matrix.csv"), pd.read_csv(run / "summary.csv"))
    quadrants = ("id_text-id_image", "ood_text-id_image")
    assert set(numbers[0]) == {f"forgetbench/{quadrant}/choice" for quadrant in quadrants}
    assert not any(math.isnan(number) for named in numbers.values() for number in named.values())


def test_signs_that_trackers_refuse_stand_in_no_name() -> None:
    row = {"step": 3, "variant": "a@b=c", "quadrant": "q", "decoding": "choice", "metric": "anls", "value": 0.5}
    row |= {"seen_in_mix": True, **dict.fromkeys(("delta", "delta_ci_low", "delta_ci_high"))}
    numbers = score_numbers(pd.DataFrame([row]), pd.DataFrame())
    assert numbers == {3: {"forgetbench/a_b_c/seen_in_mix/q/choice/anls": 0.5}}


def test_looks_of_a_guard_stand_beside_scores_of_the_same_step(run: Path) -> None:
    look = {"step": 20, "group": "ood_text-id_image", "loss": 0.1, "low": 0.02, "high": None, "budget": 0.05}
    guard = pd.DataFrame([look, {**look, "step": 40}])
    assert guard_numbers(guard)[40] == {
        "forgetbench/guard/ood_text-id_image/loss": 0.1,
        "forgetbench/guard/ood_text-id_image/low": 0.02,
        "forgetbench/guard/ood_text-id_image/budget": 0.05,
    }
    numbers = score_numbers(pd.read_csv(run / "matrix.csv"), pd.read_csv(run / "summary.csv"), guard)
    assert sorted(numbers) == [0, 10, 20, 40]
    assert {"forgetbench/guard/ood_text-id_image/loss", "forgetbench/summary/choice/A_T"} <= numbers[20].keys()
