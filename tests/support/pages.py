"""Synthetic contents of a report's page: one run with everything on it, sweeps, and long runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from forgetbench.core.records import QUADRANTS
from forgetbench.reporting.contents import Answer, Flip, LeakRow, Recommendation, ReportContents, ReportTables, RunFacts
from forgetbench.reporting.page import DrawnFigure

HOSTILE = """</script><script>window.ran = true</script><img src=x onerror="window.ran = true">'"&"""
PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
_KINDS = ("forgotten", "gained", "mischoice")
_OPTIONS = ("shirt", "coat", "bag", "boot")


def change(value: float, base: float, step: int, half: float = 0.05) -> dict[str, Any]:
    low_high = {"delta": value - base, "delta_ci_low": value - base - half, "delta_ci_high": value - base + half}
    return {"value": value, "base_value": base, **(low_high if step else dict.fromkeys(low_high))}


def row(run: str, step: int, quadrant: str, value: float, base: float, **changes: Any) -> dict[str, Any]:
    columns = {
        "run": run, "recipe": run.partition("--")[0], "model": "tiny", "target": "naming", "variant": None,
        "checkpoint": f"step_{step:06d}", "method": "plain", "stage": 1 if step else 0, "step": step,
        "quadrant": quadrant, "decoding": "choice", "metric": "accuracy", "seen_in_mix": False, "n": 200,
        "p_value": None, "p_holm": None,
    }  # fmt: skip
    return columns | change(value, base, step) | changes


def matrix_row(run: str, step: int, quadrant: str, value: float, base: float, **changes: Any) -> dict[str, Any]:
    return row(run, step, quadrant, value, base, n_datasets=2) | changes


def score_row(
    run: str, step: int, dataset: str, quadrant: str | None, value: float, base: float, **changes: Any
) -> dict[str, Any]:
    columns = {"dataset": dataset, "chance": 0.25, "forgotten": 0.2, "gained": 0.1, "mde": 0.07, "unparsed": 0.0}
    return row(run, step, quadrant, value, base, **columns) | changes  # type: ignore[arg-type]


def one_run(run: str, steps: Sequence[int] = (0, 100, 200)) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of scores and matrix in which the target is learnt and the rest is forgotten, a little more each step."""
    scores, matrix = [], []
    for step in steps:
        share = step / max(steps)
        for quadrant, (base, last) in zip(QUADRANTS, [(0.4, 0.6), (0.6, 0.4), (0.9, 0.7), (0.7, 0.69)], strict=True):
            value = base + share * (last - base)
            matrix.append(matrix_row(run, step, quadrant, value, base))
            for name in ("one", "two"):
                scores.append(score_row(run, step, f"{name}_{QUADRANTS.index(quadrant)}", quadrant, value, base))
        for metric, base, last in (("accuracy", 0.9, 0.5), ("mischoice", 0.01, 0.41)):
            scores.append(score_row(run, step, "probe", None, base + share * (last - base), base, metric=metric))
    return scores, matrix


def facts(run: str, **changes: Any) -> RunFacts:
    parts = {"language": {"total": 2_066_112, "trainable": 2_066_112}, "vision": {"total": 820_480, "trainable": 0}}
    audit = {"label": "language", "trainable": 2_066_112, "total": 2_948_416, "parts": parts}
    known = RunFacts(
        name=run,
        recipe=run.partition("--")[0],
        command=f"forgetbench finetune name={run}",
        config="seed: 0\n",
        environment={"torch": "2.13.0", "device": "cpu"},
        audit=audit,
        train_seconds=200.4,
        samples_per_s=51.26,
        peak_memory_mb=772.7,
        eval_seconds=41.0,
    )
    return replace(known, **changes)


def flips(run: str, n: int) -> Iterator[Flip]:
    for index in range(n):
        yield Flip(
            run=run,
            recipe=run.partition("--")[0],
            checkpoint="step_000200",
            dataset=("one_2", "two_3")[index % 2],
            quadrant=QUADRANTS[2 + index % 2],
            decoding="choice",
            sample_id=f"one_2/test/{index:05}",
            image="pixel" if index % 2 else "",
            question=f"Question {index}: when is it worn?",
            options=_OPTIONS,
            target="B",
            class_option=0,
            before=Answer("B", True, True, (0.1, 0.7, 0.1, 0.1)),
            after=Answer("A", False, True, (0.6, 0.2, 0.1, 0.1)),
            kinds=(_KINDS[index % 3],),
        )


def contents_of(scores: list[Any], matrix: list[Any], runs: Sequence[RunFacts], **changes: Any) -> ReportContents:
    empty = pd.DataFrame()
    known = ReportContents(
        title="demo",
        is_sweep=len(runs) > 1,
        tables=ReportTables(pd.DataFrame(scores), pd.DataFrame(matrix), empty, empty, empty, empty),
        runs=runs,
        recommendation=None,
        flips=(),
        n_flips=0,
        pictures={},
        leaks=(),
        command="forgetbench report run=outputs/demo",
    )
    return replace(known, **changes)


def single(**changes: Any) -> ReportContents:
    scores, matrix = one_run("demo")
    known = contents_of(scores, matrix, [facts("demo")])
    known = replace(known, flips=tuple(flips("demo", 47)), n_flips=120, pictures={"pixel": PIXEL})
    return replace(known, **changes)


def sweep(n_recipes: int, n_seeds: int, steps: Sequence[int] = (0, 100, 200), **changes: Any) -> ReportContents:
    names = [f"recipe-{recipe:02}--seed-{seed}" for recipe in range(n_recipes) for seed in range(n_seeds)]
    pairs = [one_run(name, steps) for name in names]
    scores, matrix = ([line for pair in pairs for line in pair[which]] for which in (0, 1))
    known: dict[str, Any] = {
        "recommendation": Recommendation("Take recipe-00.", ["It keeps most."]),
        "leaks": (LeakRow("one_2", "naming", 200, 0, 0, ""), LeakRow("two_3", "naming", 200, 0, 0, "")),
    }
    return contents_of(scores, matrix, [facts(name) for name in names], **known | changes)


def unscored(**changes: Any) -> ReportContents:
    """A run that has only trained so far: tables with columns and no row."""
    known = single(flips=(), n_flips=0)
    none = replace(known.tables, scores=known.tables.scores.iloc[:0], matrix=known.tables.matrix.iloc[:0])
    return replace(known, tables=none, runs=[facts("demo", eval_seconds=None)], **changes)


def figure(name: str) -> DrawnFigure:
    """As the charts hand them over: the ink is the page's, the width the container's."""
    ink = {"labelColor": "currentColor", "titleColor": "currentColor"}
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.1.0.json",
        "background": "transparent",
        "config": {"axis": ink},
        "width": "container",
        "height": 120,
        "data": {"values": [{"step": 0, "value": 0.4, "run": HOSTILE}, {"step": 100, "value": 0.6, "run": HOSTILE}]},
        "mark": {"type": "line", "point": True, "tooltip": True},
        "encoding": {"x": {"field": "step", "type": "quantitative"}, "y": {"field": "value", "type": "quantitative"}},
    }
    return DrawnFigure(name, f"Figure {name}", "What is seen.", f"A line that rises ({name}).", spec)
