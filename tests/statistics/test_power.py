"""Sample sizes against statsmodels and by hand."""

import pandas as pd
import pytest
from statsmodels.stats.power import NormalIndPower

from forgetbench.statistics.power import items_needed

ROW = {
    "run": "demo", "checkpoint": "step_000100", "dataset": "naming", "quadrant": "id_text-id_image",
    "decoding": "choice", "metric": "accuracy", "n": 400, "n_clusters": 400, "delta": -0.05, "delta_stderr": 0.02,
    "forgotten": 0.1, "gained": 0.05,
}  # fmt: skip


def needed(differences: list[float], power: float = 0.8, alpha: float = 0.05, **changes: object) -> pd.DataFrame:
    return items_needed(pd.DataFrame([ROW | changes]), differences, power, alpha)


@pytest.mark.parametrize(("difference", "power", "alpha"), [(0.02, 0.8, 0.05), (0.05, 0.9, 0.01)])
def test_the_sample_size_is_statsmodels(difference: float, power: float, alpha: float) -> None:
    deviation = 0.02 * 400**0.5
    expected = NormalIndPower(ddof=0).solve_power(difference / deviation, alpha=alpha, power=power, ratio=0)
    assert needed([difference], power, alpha)["items_needed"][0] == pytest.approx(expected, abs=1.5)


def test_clusters_scale_like_items_and_what_is_enough_is_said() -> None:
    rows = needed([0.01, 0.1], n_clusters=40)
    # (1.96 + 0.8416) * 0.02 = 0.056: 1 point needs 5.6032^2 = 31.4 times as much.
    assert rows["items_needed"].tolist() == [12559, 126]
    assert rows["clusters_needed"].tolist() == [1256, 13]
    assert rows["enough"].tolist() == [False, True]
    assert rows["mde"][0] == pytest.approx(0.056032, abs=1e-5)


def test_the_design_effect_compares_with_independent_items() -> None:
    variance = 0.1 + 0.05 - 0.05**2
    assert needed([0.01])["design_effect"][0] == pytest.approx(0.02**2 * 399 / variance)
    assert needed([0.01], forgotten=None)["design_effect"].isna().tolist() == [True]


def test_a_cell_in_which_nothing_changed_says_nothing() -> None:
    rows = needed([0.01], delta=0.0, delta_stderr=0.0, forgotten=0.0, gained=0.0)
    assert rows["items_needed"].isna().tolist() == [True]
    assert rows["mde"].isna().tolist() == [True]
