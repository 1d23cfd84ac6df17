"""The 2x2 matrix of a run, and one row per run of a sweep, as rich tables for a terminal.

Reads scores.csv and matrix.csv as frames. Values are percentages; a change is marked lower or
higher where its 95 % interval excludes 0, in words as well as in colour. The 2x2 is the view of
training itself; variants have rows of their own below it, named after their checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forgetbench.records import QUADRANTS, Metric

_DASH = "-"
_TARGET = "id_text-id_image"
_NAMES = {
    "id_text": "ID text",
    "ood_text": "OOD text",
    "id_image": "ID image",
    "ood_image": "OOD image",
}
_SEEN = "seen in mix"


@dataclass(frozen=True)
class _Course:
    """One decoding of one quadrant or probe metric, from the base to the last checkpoint."""

    base: float | None
    best: float | None
    last: float | None
    delta: float | None
    ci_low: float | None
    ci_high: float | None
    n_datasets: int
    is_fraction: bool = True

    def shown(self, value: float | None) -> str:
        """A value as a percentage, or on its metric's own scale."""
        if value is None:
            return _DASH
        return f"{100 * value:.1f}" if self.is_fraction else f"{value:.2f}"


def matrix_table(scores: pd.DataFrame, matrix: pd.DataFrame) -> RenderableType:
    """One run's 2x2: a line per decoding "base -> best -> last", its change and chance.

    The best checkpoint is the one with the highest accuracy on the target's own quadrant. A run
    of several stages is shown as its last stage.
    """
    edited = _variant_table(matrix, scores)
    scores, matrix = _last_stage(scores), _last_stage(matrix)
    best = _best_step(matrix)
    table = Table(title=_title(matrix, best), show_lines=True, title_justify="left")
    table.add_column("")
    for image in ("id_image", "ood_image"):
        table.add_column(_NAMES[image], min_width=38)
    for text in ("id_text", "ood_text"):
        cells = [_quadrant(scores, matrix, f"{text}-{image}", best) for image in ("id_image", "ood_image")]
        table.add_row(_NAMES[text], *cells)
    return Group(table, *_probe_lines(scores), *edited)


def sweep_table(matrix: pd.DataFrame, scores: pd.DataFrame, decoding: str = "choice") -> RenderableType:
    """One row per run and variant: base, last and change of each quadrant, and the probe's mischoice."""
    table = _quadrant_table(f"base -> last, % ({decoding})", "run")
    for run in sorted(set(matrix["run"]) | set(scores["run"])):
        rows, cells = matrix[matrix["run"] == run], scores[scores["run"] == run]
        for variant in ("", *_variants(rows)):
            table.add_row(Text(f"{run}\n{variant}" if variant else run), *_ends(rows, cells, decoding, variant))
    return table


def _variant_table(matrix: pd.DataFrame, scores: pd.DataFrame) -> list[RenderableType]:
    """The last checkpoint as trained and every variant; nothing if there is none."""
    variants, decodings = _variants(matrix), sorted(set(matrix["decoding"]))
    if not variants:
        return []
    table = _quadrant_table(f"variants: base -> variant, % ({decodings[0]})", "variant")
    for variant in ("", *variants):
        table.add_row(Text(variant or "as trained"), *_ends(matrix, scores, decodings[0], variant))
    return [table]


def _variants(frame: pd.DataFrame) -> list[str]:
    """Checkpoint names of the variants of the last stage."""
    last = frame[frame["stage"] == frame["stage"].max()]
    return sorted(set(last.loc[last["variant"].notna() & (last["variant"] != ""), "checkpoint"]))


def _quadrant_table(title: str, first: str) -> Table:
    table = Table(title=title, show_lines=True, title_justify="left")
    table.add_column(first, overflow="fold")
    for quadrant in QUADRANTS:
        text, image = quadrant.split("-")
        table.add_column(f"{_NAMES[text]}\n{_NAMES[image]}", no_wrap=True)
    table.add_column("mischoice", no_wrap=True)
    return table


def _ends(matrix: pd.DataFrame, scores: pd.DataFrame, decoding: str, variant: str) -> list[Text]:
    """A row's cells: every quadrant and the probe, from the base to the last step."""
    rows, probe = _last_stage(matrix, variant), _last_stage(scores, variant)
    rows = rows[rows["decoding"] == decoding]
    probe = probe[(probe["decoding"] == decoding) & (probe["metric"] == "mischoice")]
    cells = [_sweep_cell(rows[rows["quadrant"] == quadrant]) for quadrant in QUADRANTS]
    return [*cells, _join(_short(part) for _, part in probe.groupby("dataset"))]


def audit_table(audit: Mapping[str, Any]) -> RenderableType:
    """What trains: parameters by part, as run.json keeps them."""
    table = Table(title=f"trains {audit['trainable']:,} of {audit['total']:,} parameters", title_justify="left")
    table.add_column("part")
    table.add_column("parameters", justify="right")
    table.add_column("trainable", justify="right")
    for part, count in audit["parts"].items():
        table.add_row(part, f"{count['total']:,}", f"{count['trainable']:,}")
    return table


def _quadrant(scores: pd.DataFrame, matrix: pd.DataFrame, quadrant: str, best: int | None) -> Text:
    rows = matrix[matrix["quadrant"] == quadrant]
    lines = []
    for (seen, decoding, metric), part in rows.groupby(["seen_in_mix", "decoding", "metric"]):
        course = _course(part, best)
        members = scores[
            (scores["quadrant"] == quadrant)
            & (scores["seen_in_mix"] == seen)
            & (scores["decoding"] == decoding)
            & (scores["step"] == part["step"].max())
            & ((scores["metric"] == metric) | (metric == "accuracy"))
        ]
        chance = course.shown(_number(members["chance"].mean()))
        sets = f"{course.n_datasets} dataset{'s' * (course.n_datasets != 1)}"
        path = " -> ".join(course.shown(value) for value in (course.base, course.best, course.last))
        note = f"\n  chance {chance}, {sets}{f', {_SEEN}' * bool(seen)}"
        name = decoding if metric == "accuracy" else f"{decoding} {metric}"
        lines.append(Text.assemble(f"{name} {path}\n  ", _change(course), (note, "dim")))
    return _join(lines)


def _probe_lines(scores: pd.DataFrame) -> list[Text]:
    """Accuracy, mischoice and what the class name costs, base -> last, of every dataset that has a mischoice."""
    probes = scores[scores["dataset"].isin(scores.loc[scores["metric"] == "mischoice", "dataset"])]
    lines = []
    for (dataset, decoding), part in probes.groupby(["dataset", "decoding"]):
        line = Text(f"probe {dataset} ({decoding})")
        for metric in ("accuracy", "mischoice", "class_name_effect"):
            course = _course(part[part["metric"] == metric], None)
            if course.base is None and metric == "class_name_effect":
                continue
            path = f"{course.shown(course.base)} -> {course.shown(course.last)}"
            line = Text.assemble(line, f"\n  {metric} {path}  ", _change(course))
        lines.append(line)
    return lines


def _sweep_cell(rows: pd.DataFrame) -> Text:
    rows = rows[rows["metric"] == "accuracy"]
    return _join(
        Text.assemble(_short(part), (f"\n{_SEEN}", "dim") if seen else "") for seen, part in rows.groupby("seen_in_mix")
    )


def _short(rows: pd.DataFrame) -> Text:
    course = _course(rows, None)
    path = f"{course.shown(course.base)} -> {course.shown(course.last)}\n"
    return Text.assemble(path, _change(course, half_width=False))


def _change(course: _Course, half_width: bool = True) -> Text:
    """Delta with its half width, in words and colour what the interval says about 0."""
    if course.delta is None:
        return Text(_DASH, "dim")
    text = f"{'+' * (course.delta >= 0)}{course.shown(course.delta)}"
    if course.ci_low is None or course.ci_high is None:
        return Text(text, "dim")
    if half_width:
        text += f" +/- {course.shown((course.ci_high - course.ci_low) / 2)}"
    if course.ci_high < 0:
        return Text(f"{text} lower", "red")
    if course.ci_low > 0:
        return Text(f"{text} higher", "green")
    return Text(f"{text} unclear", "dim")


def _course(rows: pd.DataFrame, best: int | None) -> _Course:
    if rows.empty:
        return _Course(None, None, None, None, None, None, 0)
    last = rows.sort_values("step").iloc[-1]
    at_best = rows.loc[rows["step"] == best, "value"]
    return _Course(
        base=_number(last["base_value"]),
        best=_number(at_best.iloc[0]) if len(at_best) else None,
        last=_number(last["value"]),
        delta=_number(last["delta"]),
        ci_low=_number(last["delta_ci_low"]),
        ci_high=_number(last["delta_ci_high"]),
        n_datasets=int(last.get("n_datasets", 1)),
        is_fraction=last["metric"] not in set(Metric) or Metric(last["metric"]).is_fraction,
    )


def _last_stage(frame: pd.DataFrame, variant: str = "") -> pd.DataFrame:
    """Rows of one variant, or of unedited checkpoints, in the last stage; quadrants of other stages differ."""
    unedited = frame["variant"].isna() | (frame["variant"] == "")
    wanted: pd.DataFrame = frame[frame["checkpoint"] == variant] if variant else frame[unedited]
    last: pd.DataFrame = wanted[wanted["stage"] == wanted["stage"].max()]
    return last


def _best_step(matrix: pd.DataFrame) -> int | None:
    """First step of the highest target accuracy, in unmixed rows and the first decoding."""
    target = matrix[(matrix["quadrant"] == _TARGET) & matrix["value"].notna() & (matrix["metric"] == "accuracy")]
    if target.empty:
        return None
    first = target.sort_values(["seen_in_mix", "decoding"], kind="stable").iloc[0]
    target = target[(target["seen_in_mix"] == first["seen_in_mix"]) & (target["decoding"] == first["decoding"])]
    trained = target[target["step"] > 0]
    candidates = target if trained.empty else trained
    return int(candidates.loc[candidates["value"] == candidates["value"].max(), "step"].min())


def _title(matrix: pd.DataFrame, best: int | None) -> Text:
    if matrix.empty:
        return Text("no scored datasets in the matrix")
    last = matrix.sort_values("step").iloc[-1]
    named = matrix.loc[matrix["step"] == best, "checkpoint"]
    best_name = str(named.iloc[0]) if len(named) else _DASH
    return Text(f"{last['run']}: % right, base -> best -> last\nbest on target {best_name}, last {last['checkpoint']}")


def _join(parts: Iterable[Text]) -> Text:
    lines = list(parts)
    return Text("\n").join(lines) if lines else Text(_DASH, "dim")


def _number(value: object) -> float | None:
    return None if pd.isna(value) else float(value)  # type: ignore[call-overload,arg-type]
