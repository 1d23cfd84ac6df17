"""The page's other tables: what was compared, the error between seeds, what trained and its cost, leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from forgetbench.reporting.contents import LeakRow, ReportContents, RunFacts
from forgetbench.reporting.page.course import Course, number, records, text
from forgetbench.reporting.page.matrix import QUADRANT_NAMES


@dataclass(frozen=True)
class SeedLine:
    """One score of a recipe over its seeds."""

    quadrant: str
    decoding: str
    seen_in_mix: bool
    n_seeds: float | None
    course: Course
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
class PartCost:
    """What one run trained and took."""

    facts: RunFacts
    label: str
    trainable: float | None
    total: float | None
    parts: Mapping[str, tuple[float, float]]
    """Trainable and all parameters by part."""


def compared(contents: ReportContents) -> str:
    """What is compared, in one sentence without its full stop."""
    scores, n_runs = contents.tables.scores, len(contents.runs)
    recipes = len({run.recipe for run in contents.runs})
    said = [f"{n_runs} run{'s' * (n_runs != 1)}"]
    if recipes < n_runs:
        said[0] += f" of {recipes} recipe{'s' * (recipes != 1)}"
    for column, phrase in (("model", "of the model {}"), ("target", "fine-tuned on {}")):
        names = _distinct(scores, column)
        if names:
            said.append(phrase.format(", ".join(names)))
    n_sets = len(_distinct(scores, "dataset"))
    if n_sets:
        said.append(f"scored on {n_sets} set{'s' * (n_sets != 1)}")
    return ", ".join(said).replace(", of the model", " of the model")


def seed_groups(seeds: pd.DataFrame) -> list[SeedGroup]:
    """The rows of seeds.csv by recipe and variant, in their order."""
    groups: dict[tuple[str, str], list[SeedLine]] = {}
    settings: dict[tuple[str, str], str] = {}
    for row in records(seeds):
        metric = text(row["metric"])
        course = Course(
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
        said = (text(row["variant"]), text(row["method"]), text(row["parts"]), f"lr {text(row['lr'])}", mix)
        settings[key] = ", ".join(filter(None, said))
        groups.setdefault(key, []).append(
            SeedLine(
                quadrant=QUADRANT_NAMES.get(quadrant, quadrant or "in no quadrant"),
                decoding=text(row["decoding"]),
                seen_in_mix=bool(number(row["seen_in_mix"])),
                n_seeds=number(row["n_seeds"]),
                course=course,
                item_stderr=number(row["item_stderr"]),
                seed_sd=number(row["seed_sd"]),
            )
        )
    return [SeedGroup(key[0], settings[key], lines) for key, lines in groups.items()]


def costs(runs: Sequence[RunFacts]) -> list[PartCost]:
    """A row per run; parts only where the run has trained."""
    return [_cost(run) for run in runs]


def _cost(run: RunFacts) -> PartCost:
    parts = {
        name: (float(count["trainable"]), float(count["total"])) for name, count in run.audit.get("parts", {}).items()
    }
    return PartCost(
        facts=run,
        label=str(run.audit.get("label", "")),
        trainable=number(run.audit.get("trainable")),
        total=number(run.audit.get("total")),
        parts=parts,
    )


def leak_summary(leaks: Sequence[LeakRow]) -> str:
    """One sentence on the evaluation pictures that training sets show again."""
    checked = {row.dataset for row in leaks if not row.note}
    found = sorted({row.dataset for row in leaks if row.identical or row.near})
    unchecked = sorted({row.dataset for row in leaks if row.note} - set(found))
    n = len(checked | set(found))
    if found:
        said = f"{len(found)} of the {n} sets checked share pictures with a training set: {', '.join(found)}."
    elif n:
        said = f"No evaluation picture of the {n} set{'s' * (n != 1)} checked is in a training set."
    else:
        said = ""
    if unchecked:
        said += f" Not checked: {', '.join(unchecked)}."
    return said.strip()


def _distinct(frame: pd.DataFrame, column: str) -> list[str]:
    return sorted({text(value) for value in frame[column]} - {""}) if column in frame else []
