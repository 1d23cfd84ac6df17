"""The 2x2 of each run as the page shows it: quadrants, their datasets, the class-label probe and variants.

A run of several stages is shown as its last stage: the quadrants of other stages are other sets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forgetbench.core.records import QUADRANTS, Metric
from forgetbench.reporting.contents import ReportContents, RunFacts
from forgetbench.reporting.page.score_history import Row, ScoreHistory, build_score_history, records, text
from forgetbench.tables.answer_drift import DRIFT
from forgetbench.tables.last import as_trained, last_stage
from forgetbench.terminal.chance import Chance, mean_chance
from forgetbench.terminal.wording import QUADRANT_NAMES, first_decoding, is_fraction, number

TARGET = "id_text-id_image"


@dataclass(frozen=True)
class Entry:
    """A line of a quadrant or of a table of datasets."""

    name: str
    """The dataset; empty for a quadrant's mean."""
    decoding: str
    seen_in_mix: bool
    history: ScoreHistory
    n: float | None
    n_datasets: int
    chance: Chance
    forgotten: float | None
    gained: float | None
    mde: float | None
    unparsed: float | None


@dataclass(frozen=True)
class Quadrant:
    """One cell of the 2x2, with the datasets below it."""

    key: str
    means: Sequence[Entry]
    """A line per decoding, metric and whether the mix has shown the task."""
    datasets: Sequence[Entry]

    @property
    def name(self) -> str:
        """The name for readers."""
        return QUADRANT_NAMES[self.key]

    @property
    def overview_entries(self) -> list[Entry]:
        """The means in the primary decoding, `choice` if there is any; unseen tasks first."""
        decoding = first_decoding(mean.decoding for mean in self.means)
        return [mean for mean in self.means if mean.decoding == decoding]


@dataclass(frozen=True)
class Variant:
    """The last checkpoint as trained, or as edited after training."""

    name: str
    quadrants: Mapping[str, Sequence[Entry]]
    mischoice: Sequence[Entry]


@dataclass(frozen=True)
class RunView:
    """A run's scores on the page."""

    name: str
    anchor: str
    recipe: str
    target: str
    checkpoint: str
    """The last scored checkpoint; may be empty."""
    quadrants: Mapping[str, Quadrant]
    """By key, all four of them."""
    probes: Sequence[Entry]
    """Class-label probes: accuracy, mischoice and what the class name costs, per decoding."""
    mischoice: Sequence[Entry]
    """In the primary decoding, for a table of many runs."""
    outside: Sequence[Entry]
    """Sets in no quadrant."""
    others: Sequence[Entry]
    """Further measures, such as the generation gap."""
    variants: Sequence[Variant]
    is_trained: bool
    """Whether a trained checkpoint is scored, besides the base."""

    @property
    def metrics(self) -> set[str]:
        """Metrics in the 2x2."""
        return {mean.history.metric for quadrant in self.quadrants.values() for mean in quadrant.overview_entries}

    @property
    def is_scored(self) -> bool:
        """Whether any score is there."""
        return bool(self.checkpoint)

    @property
    def decodings(self) -> list[str]:
        """Every decoding of the run's datasets."""
        lines = [*self.outside, *(line for quadrant in self.quadrants.values() for line in quadrant.datasets)]
        return sorted({line.decoding for line in lines})


def run_views(contents: ReportContents) -> list[RunView]:
    """A view of every run, in the report's order."""
    tables = contents.tables.matrix, contents.tables.scores
    all_rows = [_grouped(records(table), lambda row: row["run"]) for table in tables]
    last_rows = [_grouped(records(last_stage(as_trained(table))), lambda row: row["run"]) for table in tables]
    return [
        _run_view(facts, f"run-{index}", *(table.get(facts.name, []) for table in (*last_rows, *all_rows)))
        for index, facts in enumerate(contents.runs, start=1)
    ]


def _run_view(
    facts: RunFacts,
    anchor: str,
    matrix: Sequence[Row],
    scores: Sequence[Row],
    all_matrix_rows: Sequence[Row],
    all_score_rows: Sequence[Row],
) -> RunView:
    """View of a run: its last stage as trained, and its variants from all rows."""
    probes = {row["dataset"] for row in scores if row["metric"] == "mischoice"}
    lines = _entries([row for row in scores if row["metric"] not in DRIFT], ("dataset", "decoding", "metric"))
    scored = [line for line in lines if line.history.metric in set(Metric) and line.name not in probes]
    places = {row["dataset"]: text(row["quadrant"]) for row in scores}
    last = max(scores or matrix, key=lambda row: int(row["step"]), default=None)
    return RunView(
        name=facts.name,
        anchor=anchor,
        recipe=facts.recipe,
        target="" if last is None else text(last.get("target")),
        checkpoint="" if last is None else text(last["checkpoint"]),
        quadrants={
            key: Quadrant(
                key,
                _means(matrix, key, scored_in := [line for line in scored if places[line.name] == key]),
                sorted(scored_in, key=lambda line: (line.seen_in_mix, line.name, line.decoding)),
            )
            for key in QUADRANTS
        },
        probes=[line for line in lines if line.name in probes],
        mischoice=_mischoice(lines),
        outside=[line for line in scored if not places[line.name]],
        others=[line for line in lines if line.history.metric not in set(Metric) and line.name not in probes],
        variants=_variants(matrix, scores, all_matrix_rows, all_score_rows),
        is_trained=any(int(row["step"]) > 0 for row in (*scores, *matrix)),
    )


def _means(matrix: Sequence[Row], quadrant: str, members: Sequence[Entry]) -> list[Entry]:
    """A quadrant's lines, unseen tasks first."""
    rows = [row for row in matrix if row["quadrant"] == quadrant]
    return _entries(rows, ("seen_in_mix", "decoding", "metric"), members)


def _mischoice(lines: Sequence[Entry]) -> list[Entry]:
    entries = [line for line in lines if line.history.metric == "mischoice"]
    decoding = first_decoding(line.decoding for line in entries)
    return [line for line in entries if line.decoding == decoding]


def _variants(
    matrix: Sequence[Row], scores: Sequence[Row], all_matrix_rows: Sequence[Row], all_score_rows: Sequence[Row]
) -> list[Variant]:
    """The last checkpoint as trained, then its variants; nothing if there are none."""
    stage = max((int(row["stage"]) for row in all_matrix_rows), default=0)
    names = sorted(
        {row["checkpoint"] for row in all_matrix_rows if text(row["variant"]) and int(row["stage"]) == stage}
    )
    variants = [_variant("as trained", matrix, scores)]
    for name in names:
        variant_rows = (
            [row for row in rows if row["checkpoint"] == name] for rows in (all_matrix_rows, all_score_rows)
        )
        variants.append(_variant(name, *variant_rows))
    return variants if names else []


def _variant(name: str, matrix: Sequence[Row], scores: Sequence[Row]) -> Variant:
    means = {key: Quadrant(key, _means(matrix, key, []), []).overview_entries for key in QUADRANTS}
    return Variant(name, means, _mischoice(_entries(scores, ("dataset", "decoding", "metric"))))


def _entries(rows: Sequence[Row], keys: Sequence[str], members: Sequence[Entry] = ()) -> list[Entry]:
    groups = _grouped(rows, lambda row: tuple(row[key] for key in keys))
    return [_entry(groups[key], members) for key in sorted(groups)]


def _entry(rows: Sequence[Row], members: Sequence[Entry]) -> Entry:
    last, history = max(rows, key=lambda row: int(row["step"])), build_score_history(rows)
    seen, decoding = bool(number(last.get("seen_in_mix"))), str(last["decoding"])
    n_datasets, scale = int(last.get("n_datasets", 1)), is_fraction(history.metric)
    levels = [
        line.chance.value
        for line in members
        if (line.seen_in_mix, line.decoding, is_fraction(line.history.metric)) == (seen, decoding, scale)
    ]
    return Entry(
        name=text(last.get("dataset")),
        decoding=decoding,
        seen_in_mix=seen,
        history=history,
        n=number(last.get("n")),
        n_datasets=n_datasets,
        chance=mean_chance(levels or [number(last.get("chance"))], n_datasets),
        forgotten=number(last.get("forgotten")),
        gained=number(last.get("gained")),
        mde=number(last.get("mde")),
        unparsed=number(last.get("unparsed")),
    )


def _grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(groups)
