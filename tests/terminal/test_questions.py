"""What `forgetbench compare` says in a terminal."""

from __future__ import annotations

import io

import pandas as pd
from rich.console import Console

from forgetbench.terminal.questions import comparison_table


def row(level: str, name: str, metric: str = "accuracy", **changes: object) -> dict[str, object]:
    known = {"first": 0.5, "second": 0.4, "difference": -0.1, "ci_low": -0.15, "ci_high": -0.05}
    named = {"level": level, "name": name, "metric": metric, "decoding": "choice", "seen_in_mix": False, "n": 40}
    return named | known | {"n_seeds": 1, "p_holm": 0.01, "margin": None, "verdict": "lower"} | changes


CAPTIONS = row("dataset", "captions", "cider_d", first=5.481, second=2.0, difference=-3.481, ci_low=-4, ci_high=-3)


def shown(*rows: dict[str, object]) -> str:
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(comparison_table(pd.DataFrame(rows), "a", "b"))
    return " ".join(console.export_text().split())


def test_a_metric_on_its_own_scale_is_named_and_not_in_percent() -> None:
    text = shown(row("quadrant", "ood_text-ood_image"), row("dataset", "naming"), CAPTIONS)
    assert "% right (other metrics on their own scale), change likewise [95 % interval]" in text
    assert "captions cider_d 40 5.48 2.00 -3.48 [-4.00, -3.00]" in text
    assert "naming 40 50.0 40.0 -10.0 [-15.0, -5.0]" in text


def test_percent_and_points_are_said_of_fractions_only() -> None:
    assert "% right, change in points [95 % interval]" in shown(row("dataset", "naming"))
    text = shown(CAPTIONS)
    assert "metrics on their own scale, change likewise" in text
    assert "% right" not in text


def test_another_fraction_than_accuracy_is_named_and_in_percent() -> None:
    text = shown(row("dataset", "documents", "anls"))
    assert "documents anls 40 50.0 40.0" in text
    assert "own scale" not in text


def test_what_higher_lower_and_the_p_values_are_of_is_said() -> None:
    text = shown(row("dataset", "naming"))
    assert "higher, lower: where p Holm, which is adjusted over the rows of each table, is below .05" in text
