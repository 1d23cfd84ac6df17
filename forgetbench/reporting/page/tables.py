"""The page's other tables: the comparison, error between seeds, trained parameters and cost, leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from forgetbench.core.records import Metric
from forgetbench.reporting.contents import LeakRow, ReportContents, RunFacts
from forgetbench.reporting.page.score_history import ScoreHistory, records, text
from forgetbench.terminal.wording import QUADRANT_NAMES, is_fraction, number


@dataclass(frozen=True)
class SeedLine:
    """One score of a recipe over its seeds."""

    quadrant: str
    decoding: str
    seen_in_mix: bool
    n_seeds: float | None
    history: ScoreHistory
    item_stderr: float | None
    seed_sd: float | None


@dataclass(frozen=True)
class SeedGroup:
    """A recipe's scores over its seeds."""

    recipe: str
    settings: str
    """Variant, method, parts, rate and mix, in words."""
    lines: Sequence[SeedLine]


@dataclass(frozen=True)
class TrainingCost:
    """Trained parameters and cost of a run."""

    facts: RunFacts
    label: str
    trainable: float | None
    total: float | None
    parts: Mapping[str, tuple[float, float]]
    """Trainable and all parameters by part."""


def comparison_sentence(contents: ReportContents) -> str:
    """A sentence, without full stop, that says what is compared."""
    scores, n_runs = contents.tables.scores, len(contents.runs)
    is_trained = scores.empty or bool((scores["step"] > 0).any())
    models, recipes = ", ".join(_distinct(scores, "model")), len({run.recipe for run in contents.runs})
    if is_trained:
        sentence = f"Forgetting in {n_runs} run{'s' * (n_runs != 1)}"
        sentence += f" of {recipes} recipe{'s' * (recipes != 1)}" if recipes < n_runs else ""
        sentence += f" of the model {models}" if models else ""
        scores = scores[scores["step"] > 0] if len(scores) else scores
    else:
        sentence = f"The untouched model {models}, nothing trained"
    if targets := _distinct(scores, "target"):
        sentence += f", {'fine-tuned on' if is_trained else 'with quadrants relative to'} {', '.join(targets)}"
    n_sets = len(_distinct(contents.tables.scores, "dataset"))
    return f"{sentence}, scored on {n_sets} set{'s' * (n_sets != 1)}" if n_sets else sentence


def non_fraction_metrics(scores: pd.DataFrame) -> str:
    """The metrics of all sets, where none is a fraction of 1; else empty."""
    metrics = [metric for metric in _distinct(scores, "metric") if metric in set(Metric)]
    return "" if any(map(is_fraction, metrics)) else ", ".join(metrics)


def seed_groups(seeds: pd.DataFrame) -> list[SeedGroup]:
    """The rows of seeds.csv by recipe and variant, in their order."""
    groups: dict[tuple[str, str], list[SeedLine]] = {}
    settings: dict[tuple[str, str], str] = {}
    for row in records(seeds):
        metric = text(row["metric"])
        history = ScoreHistory(
            metric=metric,
            base=number(row["base_value"]),
            last=number(row["value"]),
            delta=number(row["delta"]),
            ci_low=number(row["ci_low"]),
            ci_high=number(row["ci_high"]),
            p_holm=None,
            checkpoint="",
            points=(),
        )
        key = (text(row["recipe"]), text(row["variant"]))
        quadrant = text(row["quadrant"])
        mix = text(row["mix"]) and f"mix {text(row['mix'])} at {text(row['mix_ratio'])}"
        words = (text(row["variant"]), text(row["method"]), text(row["parts"]), f"lr {text(row['lr'])}", mix)
        settings[key] = ", ".join(filter(None, words))
        groups.setdefault(key, []).append(
            SeedLine(
                quadrant=QUADRANT_NAMES.get(quadrant, quadrant or "in no quadrant"),
                decoding=text(row["decoding"]),
                seen_in_mix=bool(number(row["seen_in_mix"])),
                n_seeds=number(row["n_seeds"]),
                history=history,
                item_stderr=number(row["item_stderr"]),
                seed_sd=number(row["seed_sd"]),
            )
        )
    return [SeedGroup(key[0], settings[key], lines) for key, lines in groups.items()]


def costs(runs: Sequence[RunFacts]) -> list[TrainingCost]:
    """A row per run; parts only where the run has trained."""
    return [_cost(run) for run in runs]


def _cost(run: RunFacts) -> TrainingCost:
    parts = {
        name: (float(count["trainable"]), float(count["total"])) for name, count in run.audit.get("parts", {}).items()
    }
    return TrainingCost(
        facts=run,
        label=str(run.audit.get("label", "")),
        trainable=number(run.audit.get("trainable")),
        total=number(run.audit.get("total")),
        parts=parts,
    )


def leak_summary(leaks: Sequence[LeakRow]) -> str:
    """In a sentence or two, which evaluation pictures training sets show again, exactly or nearly."""
    checked = {row.dataset for row in leaks if not row.note}
    unchecked = list(dict.fromkeys(row.dataset for row in leaks if row.note))
    repeated: dict[str, list[str]] = {}
    for row in leaks:
        if row.identical or row.near:
            repeated.setdefault(row.dataset, []).append(_repeats(row))
    n = len(checked)
    sets = f"{n} set{'s' * (n != 1)} checked"
    sentences = []
    if repeated:
        listed = "; ".join(f"{name} ({', '.join(repeats)})" for name, repeats in repeated.items())
        verb = "has" if len(repeated) == 1 else "have"
        sentences.append(f"{len(repeated)} of the {sets} {verb} pictures that a training set shows again: {listed}.")
    elif n:
        sentences.append(f"No picture of the {sets} is identical, or nearly identical, to one in a training set.")
    if unchecked:
        sentences.append(f"Not checked: {', '.join(unchecked)}.")
    return " ".join(sentences)


def _repeats(row: LeakRow) -> str:
    kinds = ((row.identical, "identical"), (row.near, "nearly identical"))
    return " and ".join(f"{n} {kind}" for n, kind in kinds if n) + f" to those of {row.trained_on}"


def _distinct(frame: pd.DataFrame, column: str) -> list[str]:
    return sorted({text(value) for value in frame[column]} - {""}) if column in frame else []
