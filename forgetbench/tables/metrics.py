"""The metrics of a cell: the dataset's metric, and further measures of its answers, by item where possible.

Each metric says to which cells it applies; where it does not, or has no value, there is no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from forgetbench.core.records import LETTERS, AnswerKind, Decoding
from forgetbench.scoring.bias import names_label, recall_deviation
from forgetbench.scoring.choice import likeliest_per_character
from forgetbench.scoring.reply import answer_part
from forgetbench.statistics.bounds import SHARE, limits_of_difference
from forgetbench.statistics.intervals import (
    ClusteredScores,
    Estimate,
    clustered_mean,
    difference_of_means,
    paired_difference,
)
from forgetbench.statistics.ratios import RatioScores, clustered_ratio, ratio_difference
from forgetbench.statistics.strata import Floats
from forgetbench.tables.answer_drift import DRIFT, LENGTH_NORMALISED, drift_scores
from forgetbench.tables.cell_view import CellView, aligned, matched, ways
from forgetbench.tables.number_words import holds_number, number_share
from forgetbench.tables.yes_no import YesNoCounts, yes_no_counts

Scores = ClusteredScores | RatioScores | float
"""Per item, as a ratio over items, or a number without a standard error."""


class Cells:
    """Index of all cells of a table."""

    def __init__(self, cells: Iterable[CellView]) -> None:
        """Index the cells."""
        self._all = list(cells)
        self._bases = {cell.context.base_key: cell for cell in self._all if cell.context.is_base}
        self._by_key = {
            cell.context.matching_key(cell.context.dataset, cell.context.decoding): cell for cell in self._all
        }

    def base(self, cell: CellView) -> CellView | None:
        """The cell of the untouched model of the same run."""
        return self._bases.get(cell.context.base_key)

    def matching_cell(self, cell: CellView, dataset: str, decoding: str) -> CellView | None:
        """Another cell of the same checkpoint, its items in this cell's order; None if it lacks one of them."""
        other = self._by_key.get(cell.context.matching_key(dataset, decoding))
        return None if other is None else matched(other, cell)


@dataclass(frozen=True)
class Measure:
    """A metric and how to compute it."""

    name: str
    compute: Callable[[CellView, Cells], Scores | None]
    """None where it does not apply."""
    paired: bool = True
    """Whether the same items count at every checkpoint."""


def measures(cell: CellView) -> list[Measure]:
    """The metrics of a cell, its dataset's metric first."""
    return [Measure(cell.context.metric, lambda view, _: item_scores(view)), *EXTRA_MEASURES]


def estimate(scores: Scores | None) -> Estimate:
    """A metric's value with its error, where known."""
    if isinstance(scores, ClusteredScores):
        return clustered_mean(scores.values, scores.clusters, limits=scores.limits)
    if isinstance(scores, RatioScores):
        return clustered_ratio(scores)
    return Estimate(scores, None, None, None, 0, 0)


def change(after: Scores | None, before: Scores | None, paired: bool) -> Estimate:
    """A metric's change, item by item where the items are the same."""
    if isinstance(after, ClusteredScores) and isinstance(before, ClusteredScores):
        if not paired:
            return difference_of_means(after, before)
        return paired_difference(after.values, before.values, after.clusters, limits=after.limits).difference
    if isinstance(after, RatioScores) and isinstance(before, RatioScores):
        return ratio_difference(after, before)
    known = isinstance(after, float) and isinstance(before, float)
    return estimate(after - before if known else None)  # type: ignore[operator]


def item_scores(cell: CellView) -> ClusteredScores:
    """Score of each item in the dataset's metric; an answer that no rule could parse scores 0."""
    values = cell.frame["score"].to_numpy(dtype=np.float64)
    return ClusteredScores(values, cell.ways, SHARE if cell.context.metric.is_fraction else None)


def label_bias(cell: CellView) -> float | None:
    """Share of written answers that name a label of the fine-tuning task though the item does not hold it."""
    frame, labels = cell.frame, cell.context.labels
    if not labels or frame["text"].isna().any() or frame.empty:
        return None
    named = [
        names_label(answer_part(text) or "", labels, [*options, *LETTERS[: len(options)], *references])
        for text, options, references in zip(frame["text"], frame["options"], frame["references"], strict=True)
    ]
    return float(np.mean(named))


def _score_difference(cell: CellView, other: CellView | None) -> ClusteredScores | None:
    """Difference of each item's scores between two cells."""
    if other is None or cell.frame.empty:
        return None
    scores, other_scores = item_scores(cell), item_scores(other)
    difference_N = np.asarray(scores.values) - np.asarray(other_scores.values)
    return ClusteredScores(difference_N, scores.clusters, limits_of_difference(scores.limits, other_scores.limits))


def _generation_gap(cell: CellView, cells: Cells) -> Scores | None:
    """Score of written answers minus score by likelihood, on the same items."""
    if cell.context.decoding == Decoding.choice:
        return None
    return _score_difference(cell, cells.matching_cell(cell, cell.context.dataset, Decoding.choice))


def _class_name_effect(cell: CellView, cells: Cells) -> Scores | None:
    """Accuracy with the class name among the options less accuracy without, on the same items."""
    if not cell.context.probe_of:
        return None
    return _score_difference(cell, cells.matching_cell(cell, cell.context.probe_of, cell.context.decoding))


def _mischoice(cell: CellView, _: Cells) -> Scores | None:
    """Share of all items answered with the pictured object's class name."""
    return ClusteredScores(_names_class(cell.frame), item_scores(cell).clusters) if cell.context.probe else None


def _mischoice_of_wrong(cell: CellView, _: Cells) -> Scores | None:
    """The same as a share of the wrong answers."""
    if not cell.context.probe:
        return None
    wrong = cell.frame[cell.frame["score"] < 1]
    return ClusteredScores(_names_class(wrong), ways(wrong, cell.context.dataset))


def _names_class(frame: pd.DataFrame) -> Floats:
    answers = [
        None if pd.isna(k) else LETTERS[int(k)] if kind == AnswerKind.letter else options[int(k)]
        for k, kind, options in zip(frame["class_option"], frame["kind"], frame["options"], strict=True)
    ]
    parsed = _parsed(frame)
    return np.array([a is not None and a == b for a, b in zip(answers, parsed, strict=True)], dtype=np.float64)


def _per_character(cell: CellView, _: Cells) -> Scores | None:
    """Accuracy if options are compared by log-probability per character; where options were scored as texts."""
    frame = cell.frame
    if LENGTH_NORMALISED in cell.context.settings:
        return None
    texts = frame["kind"].eq(AnswerKind.option) & frame["option_logprobs"].notna()
    if frame.empty or not texts.all() or not any(len(set(map(len, options))) > 1 for options in frame["options"]):
        return None
    hits = [
        options[likeliest_per_character(logprobs, options)] == target
        for logprobs, options, target in zip(frame["option_logprobs"], frame["options"], frame["target"], strict=True)
    ]
    return ClusteredScores(np.array(hits, dtype=np.float64), cell.ways)


def _letter_bias(cell: CellView, _: Cells) -> Scores | None:
    """Standard deviation over the letters of their recall."""
    if not cell.frame["kind"].eq(AnswerKind.letter).all():
        return None
    return recall_deviation(_parsed(cell.frame), list(cell.frame["target"]))


def _yes_no(part: Callable[[YesNoCounts, Sequence[Sequence[str]]], RatioScores]) -> Callable[..., Scores | None]:
    def compute(cell: CellView, _: Cells) -> Scores | None:
        frame = cell.frame
        folded = {tuple(sorted(map(str.casefold, options))) for options in frame["options"]}
        if folded != {("no", "yes")} or not frame["kind"].eq(AnswerKind.option).all():
            return None
        answers = [None if answer is None else answer.casefold() for answer in _parsed(frame)]
        counts = yes_no_counts(answers, [str(target).casefold() for target in frame["target"]], "yes")
        return part(counts, cell.ways)

    return compute


def _number_words(cell: CellView, _: Cells) -> Scores | None:
    """Share of number words in free replies, over the items that ask for no number."""
    frame = cell.frame
    if "asks_number" not in frame or frame["text"].isna().any():
        return None
    is_free = frame["kind"].eq(AnswerKind.text) & ~frame["asks_number"].astype(bool)
    free = frame[is_free & ~frame["references"].map(holds_number)]
    if free.empty:
        return None
    shares = [number_share(answer_part(text) or "") for text in free["text"]]
    return ClusteredScores(np.array(shares, dtype=np.float64), ways(free, cell.context.dataset))


def _drift(name: str) -> Callable[[CellView, Cells], Scores | None]:
    def compute(cell: CellView, cells: Cells) -> Scores | None:
        base = None if cell.context.is_base else cells.base(cell)
        return None if base is None else drift_scores(name, cell, aligned(base, cell))

    return compute


def _parsed(frame: pd.DataFrame) -> list[str | None]:
    return [None if pd.isna(answer) else str(answer) for answer in frame["parsed"]]


EXTRA_MEASURES = (
    Measure("mischoice", _mischoice),
    Measure("mischoice_of_wrong", _mischoice_of_wrong, paired=False),
    Measure("class_name_effect", _class_name_effect),
    Measure("generation_gap", _generation_gap),
    Measure("accuracy_per_character", _per_character),
    Measure("letter_bias", _letter_bias),
    Measure("precision", _yes_no(YesNoCounts.precision)),
    Measure("recall", _yes_no(YesNoCounts.recall)),
    Measure("f1", _yes_no(YesNoCounts.f1)),
    Measure("number_words", _number_words),
    *(Measure(name, _drift(name)) for name in DRIFT),
)
"""Metrics besides the dataset's metric."""
