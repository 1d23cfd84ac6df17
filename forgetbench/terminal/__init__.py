"""The 2x2 matrix of a run, and one row per run of a sweep, for a terminal of 80 columns or more.

Reads scores.csv and matrix.csv as frames. Values are percentages; a change is marked lower or
higher as `tables.verdict` says, green for the better and red for the worse. The 2x2 is the view of
training itself; variants have rows of their own below it, named after their checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forgetbench.core.records import Metric
from forgetbench.tables.last import as_trained, last_stage, last_step
from forgetbench.terminal.cells import DASH, Change, Fitted, change, fold, star_lines
from forgetbench.terminal.chance import mean_chance
from forgetbench.terminal.first_and_last import NAMES, SEEN, ChangeRow, change_row, first_and_last_table
from forgetbench.terminal.plain import PROBE, plain_rows
from forgetbench.terminal.wording import number, units

_TARGET = "id_text-id_image"
_TEXTS = ("id_text", "ood_text")
_IMAGES = ("id_image", "ood_image")
_LABEL = max(len(NAMES[text]) for text in _TEXTS)


@dataclass(frozen=True)
class _Entry:
    """One decoding of one quadrant."""

    values: str
    change: Change
    facts: str
    is_seen: bool

    def on_one_line(self) -> int:
        return len(self.values) + 2 + self.change.words(half_width=True).cell_len

    def text(self, width: int, one_line: bool) -> Text:
        note = f"  {self.facts}"
        if self.is_seen:
            note += f", {SEEN}" if len(f"{note}, {SEEN}") <= width else f"\n  {SEEN}"
        return Text.assemble(
            self.values, "  " if one_line else "\n  ", self.change.words(half_width=True), (f"\n{note}", "dim")
        )


def matrix_table(scores: pd.DataFrame, matrix: pd.DataFrame) -> RenderableType:
    """One run's 2x2: "base -> best -> last" per decoding, its change and chance.

    The best checkpoint is the one with the highest accuracy on the target's own quadrant. A run
    of several stages is shown as its last stage.
    """
    rows = plain_rows(matrix, scores)
    trained = rows[rows["variant"].isna()]
    trained_matrix = last_stage(as_trained(matrix))
    best = _best_step(trained_matrix)
    entries = {
        f"{text}-{image}": _entries(trained[trained["quadrant"] == f"{text}-{image}"], trained_matrix, scores, best)
        for text in _TEXTS
        for image in _IMAGES
    }
    probes = trained[trained["quadrant"].str.startswith(PROBE)]
    variants = variant_lines(rows)
    changes = [change(row) for row in trained.to_dict("records")]
    changes += [score_change for row in variants for score_change in row.changes()]

    def draw(width: int) -> RenderableType:
        parts: list[RenderableType] = [
            _folded(_title(matrix, trained_matrix, best, {score_change.metric for score_change in changes}), width)
        ]
        if any(entries.values()):
            parts += ["", _grid(entries, width), ""]
        parts += _probe_lines(probes)
        if variants:
            heading = f"variants: base -> variant, % ({min(rows['decoding'])})"
            parts += ["", _folded(heading, width), "", first_and_last_table("variant", variants, width)]
        return Group(*parts, *star_lines(changes))

    return Fitted(draw)


def sweep_table(
    matrix: pd.DataFrame, scores: pd.DataFrame, decoding: str = "choice", notes: Mapping[str, str] | None = None
) -> RenderableType:
    """One row per run and variant: base, last and change of each quadrant, and the probe's mischoice.

    Args:
        matrix: matrix.csv of all runs.
        scores: scores.csv of all runs.
        decoding: the decoding to show.
        notes: run -> note behind its name.
    """
    lines = sweep_lines(matrix, scores, decoding, notes)
    if not lines:
        return Text("no scored runs")
    changes = [score_change for line in lines for score_change in line.changes()]

    def draw(width: int) -> RenderableType:
        title = _folded(f"base -> last, % ({decoding})", width)
        return Group(title, "", first_and_last_table("run", lines, width), *star_lines(changes))

    return Fitted(draw)


def sweep_lines(
    matrix: pd.DataFrame, scores: pd.DataFrame, decoding: str, notes: Mapping[str, str] | None = None
) -> list[ChangeRow]:
    """The rows of `sweep_table`."""
    rows = plain_rows(matrix, scores)
    rows = rows[rows["decoding"] == decoding]
    lines: list[ChangeRow] = []
    for run in sorted({str(run) for frame in (matrix, scores) for run in frame["run"]}):
        run_rows = rows[rows["run"] == run]
        note = (notes or {}).get(run)
        lines += [
            change_row(f"{run} ({note})" if note else run, run_rows[run_rows["variant"].isna()]),
            *_variant_rows(run_rows),
        ]
    return lines


def audit_table(audit: Mapping[str, Any]) -> RenderableType:
    """What trains: parameters by part, and by word where a recipe names modules, as run.json keeps them."""
    table = Table(title=f"trains {audit['trainable']:,} of {audit['total']:,} parameters", title_justify="left")
    table.add_column("part")
    table.add_column("parameters", justify="right")
    table.add_column("trainable", justify="right")
    for part, count in (audit["parts"] | audit.get("words", {})).items():
        table.add_row(part, f"{count['total']:,}", f"{count['trainable']:,}")
    return table


def training_lines(train: pd.DataFrame) -> str:
    """How far a run has come that is not scored yet: two lines from its train.csv, a dash for what it does not say."""
    if train.empty:
        return "no step trained yet"
    last = train.iloc[-1]
    speed, memory = (pd.to_numeric(train.get(name, pd.Series())) for name in ("samples_per_s", "peak_memory_mb"))
    return (
        f"stage {_figure(last.get('stage'), '.0f')}, step {_figure(last.get('step'), '.0f')}: "
        f"loss {_figure(last.get('loss'), '.4g')}\n"
        f"mean {_figure(speed.mean(), '.1f')} samples/s, peak memory {_figure(memory.max(), '.0f')} MB"
    )


def _figure(value: object, form: str) -> str:
    parsed = number(value)
    return DASH if parsed is None else format(parsed, form)


def _entries(rows: pd.DataFrame, matrix: pd.DataFrame, scores: pd.DataFrame, best: int | None) -> list[_Entry]:
    """The entries of one quadrant's plain rows; the best value and chance are in the tables only."""
    entries = []
    keys = ["quadrant", "decoding", "metric", "seen_in_mix"]
    for row in rows.to_dict("records"):
        best_rows = matrix[(matrix[keys] == [row[key] for key in keys]).all(axis=1) & (matrix["step"] == best)]
        members = scores[
            (scores[["checkpoint", "quadrant", "decoding", "seen_in_mix"]]
            == [row[key] for key in ("checkpoint", "quadrant", "decoding", "seen_in_mix")]).all(axis=1)
            & scores["metric"].isin(_metrics(row["metric"]))
        ]  # fmt: skip
        score_change, n = change(row), int(row["n_datasets"])
        chance = mean_chance(map(number, members["chance"]), n)
        name = row["decoding"] if row["metric"] == "accuracy" else f"{row['decoding']} {row['metric']}"
        path = score_change.path(number(best_rows["value"].iloc[0]) if len(best_rows) else None)
        level = chance.reason or f"{score_change.shown(chance.value)}, {n}"
        facts = f"chance {level} dataset{'s' * (n != 1)}"
        entries.append(_Entry(f"{name} {path}", score_change, facts, bool(row["seen_in_mix"])))
    return entries


def _metrics(scale: str) -> list[str]:
    """What the datasets of a mean are scored by."""
    return [metric for metric in Metric if metric.is_fraction] if scale == Metric.accuracy else [scale]


def _grid(entries: Mapping[str, Sequence[_Entry]], width: int) -> Table:
    column = (width - _LABEL - 4) // 2
    one_line = all(entry.on_one_line() <= column for cell in entries.values() for entry in cell)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), show_lines=True)
    table.add_column("", width=_LABEL)
    for image in _IMAGES:
        table.add_column(NAMES[image], overflow="fold", min_width=min(column, 32), max_width=column)
    for text in _TEXTS:
        cells = ([entry.text(column, one_line) for entry in entries[f"{text}-{image}"]] for image in _IMAGES)
        table.add_row(NAMES[text], *(Text("\n").join(cell) if cell else Text(DASH, "dim") for cell in cells))
    return table


def _probe_lines(probes: pd.DataFrame) -> Iterator[Text]:
    """Accuracy, mischoice and what the class name costs, base -> last, of every class-label probe."""
    for (quadrant, decoding), part in probes.groupby(["quadrant", "decoding"]):
        line = Text(f"probe {str(quadrant).removeprefix(PROBE)} ({decoding})")
        for row in part.to_dict("records"):
            score_change = change(row)
            line.append(f"\n  {row['metric']} {score_change.path()}  ").append_text(score_change.words(half_width=True))
        yield line


def variant_lines(rows: pd.DataFrame) -> list[ChangeRow]:
    """The last checkpoint as trained and every variant, in the first decoding; nothing if there is no variant."""
    rows = rows[rows["decoding"] == rows["decoding"].min()]
    variants = _variant_rows(rows)
    return [change_row("as trained", rows[rows["variant"].isna()]), *variants] if variants else []


def _variant_rows(rows: pd.DataFrame) -> list[ChangeRow]:
    """Variants in one run's plain rows; a variant of the last checkpoint is named without its step: "@wise_ft-0.5"."""
    trained = [f"{name}@" for name in set(rows.loc[rows["variant"].isna(), "checkpoint"])]
    edited = rows[rows["variant"].notna()]
    lines = []
    for checkpoint, part in edited.groupby("checkpoint"):
        step = next((len(name) - 1 for name in trained if str(checkpoint).startswith(name)), 0)
        lines.append(change_row(str(checkpoint)[step:], part))
    return lines


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


def _title(matrix: pd.DataFrame, trained_matrix: pd.DataFrame, best: int | None, metrics: set[str]) -> str:
    if matrix.empty:
        return "no scored datasets in the matrix"
    last = last_step(trained_matrix)["checkpoint"]
    at_best = trained_matrix.loc[trained_matrix["step"] == best, "checkpoint"]
    last_name, best_name = (str(names.iloc[0]) if len(names) else DASH for names in (last, at_best))
    run = matrix["run"].iloc[0]
    return f"{run}: {units(metrics, '% right')}, base -> best -> last\nbest on target {best_name}, last {last_name}"


def _folded(text: str, width: int) -> Text:
    return Text("\n".join(part for line in text.split("\n") for part in fold(line, width)))
