"""Turn a finished `sweep=findings` into docs/results/findings.md: means over seeds, spread between seeds, intervals.

python -m tools.summarise_findings outputs/findings
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from forgetbench.core.records import QUADRANTS
from forgetbench.statistics.bounds import CHANGE
from forgetbench.statistics.intervals import ClusteredScores, difference_of_means
from forgetbench.tables.cell_view import ways

OUT = Path(__file__).resolve().parents[1] / "docs/results/findings.md"
HEADINGS = ("ID text, ID image", "ID text, OOD image", "OOD text, ID image", "OOD text, OOD image")
CONTROLS = ("hybrid_leaky", "hybrid_same_question")
"""Mixes that share a text task with an evaluation set on purpose."""
RECIPE = r"recipe-(\w+)--seed"


def main() -> None:
    """Write the page."""
    folder = Path(sys.argv[1])
    scores = pd.read_csv(folder / "scores.csv")
    scores["recipe"] = scores["run"].str.extract(RECIPE)[0]
    scores = _last(scores.sort_values(["recipe", "seed"]))
    text = "\n\n".join(
        [
            "# What the embedded world shows",
            "Made by `forgetbench sweep sweep=findings threads=1`, then `python -m tools.summarise_findings "
            "outputs/findings`. Target `fashion_naming`, likelihood over the options, last checkpoint. Percentages; a "
            "cell is the mean over three seeds and, in brackets, its change from the base: mean over seeds, plus or "
            "minus the standard deviation between seeds. Half widths are of 95 % intervals over the items of one run.",
            _quadrants(scores),
            _probe(scores),
            _datasets(scores),
            _interaction(scores, folder),
        ]
    )
    OUT.write_text(text + "\n", "utf-8")
    print(text)


def _last(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["step"] == table.groupby("run")["step"].transform("max")]


def _cell(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    change = rows["delta"] * 100
    return f"{rows['value'].mean() * 100:.1f} ({change.mean():+.1f} ± {change.std():.1f})"


def _half_width(rows: pd.DataFrame) -> str:
    return f"{((rows['delta_ci_high'] - rows['delta_ci_low']) / 2 * 100).median():.1f}"


def _quadrants(scores: pd.DataFrame) -> str:
    """Quadrants by recipe: means over the sets whose task no recipe's mix has seen, the leaky control aside."""
    accuracy = scores[(scores["metric"] == "accuracy") & scores["quadrant"].notna()]
    seen = accuracy[accuracy["seen_in_mix"] & ~accuracy["recipe"].isin(CONTROLS)]["dataset"].unique()
    clean = accuracy[~accuracy["dataset"].isin(seen)]
    members = clean.groupby("quadrant")["dataset"].unique()
    means = clean.groupby(["recipe", "seed", "quadrant"])[["value", "base_value", "delta"]].mean().reset_index()
    lines = [f"| recipe | {' | '.join(HEADINGS)} |", "|---|" + "---|" * 4]
    bases = [means[means["quadrant"] == quadrant]["base_value"].iloc[0] * 100 for quadrant in QUADRANTS]
    lines.append("| base | " + " | ".join(f"{value:.1f}" for value in bases) + " |")
    for recipe, rows in means.groupby("recipe"):
        lines.append(
            f"| {recipe} | " + " | ".join(_cell(rows[rows["quadrant"] == quadrant]) for quadrant in QUADRANTS) + " |"
        )
    sets = "; ".join(
        f"{head}: {', '.join(members[quadrant])}" for head, quadrant in zip(HEADINGS, QUADRANTS, strict=True)
    )
    note = (
        "Means over the same sets in every row: those whose text task is in no recipe's mix, the two controls aside, "
        f"whose mixes share one on purpose. {sets}."
    )
    return "\n".join(["## Quadrants", "", note, "", *lines])


def _probe(scores: pd.DataFrame) -> str:
    lines = ["| recipe | accuracy | answers with the class name | of the wrong answers |", "|---|---|---|---|"]
    probe = scores[scores["dataset"] == "fashion_probe"]
    metrics = ("accuracy", "mischoice", "mischoice_of_wrong")
    bases = [probe[probe["metric"] == metric]["base_value"].iloc[0] * 100 for metric in metrics]
    lines.append("| base | " + " | ".join(f"{value:.1f}" for value in bases) + " |")
    for recipe, rows in probe.groupby("recipe"):
        lines.append(f"| {recipe} | " + " | ".join(_cell(rows[rows["metric"] == metric]) for metric in metrics) + " |")
    widths = " | ".join(_half_width(probe[probe["metric"] == metric]) for metric in metrics)
    return "\n".join(["## The class-label probe", "", *lines, f"| half width in a run | {widths} |"])


def _datasets(scores: pd.DataFrame) -> str:
    accuracy = scores[scores["metric"] == "accuracy"]
    recipes = sorted(accuracy["recipe"].unique())
    lines = [f"| dataset | chance | base | {' | '.join(recipes)} |", "|---|---|---|" + "---|" * len(recipes)]
    for dataset, rows in accuracy.groupby("dataset"):
        cells = " | ".join(_cell(rows[rows["recipe"] == recipe]) for recipe in recipes)
        chance, base = rows["chance"].iloc[0] * 100, rows["base_value"].iloc[0] * 100
        lines.append(f"| {dataset} | {chance:.0f} | {base:.1f} | {cells} |")
    return "\n".join(["## Every dataset", "", *lines])


def _interaction(scores: pd.DataFrame, folder: Path) -> str:
    """Drop on OOD text minus drop on ID text, on the same pictures."""
    lines = ["| recipe | seed | fashion_probe | fashion_knowledge |", "|---|---|---|---|"]
    accuracy = scores[scores["metric"] == "accuracy"]
    base = pd.read_csv(folder / "scores.csv")
    base = base[(base["step"] == 0) & (base["metric"] == "accuracy")].drop_duplicates("dataset").set_index("dataset")
    for (recipe, seed), rows in accuracy.groupby(["recipe", "seed"]):
        cells = rows.set_index("dataset")["cell"]
        named = _drop(folder, cells["fashion_naming"], base.loc["fashion_naming", "cell"], "fashion_naming")
        shown = []
        for other in ("fashion_probe", "fashion_knowledge"):
            difference = difference_of_means(_drop(folder, cells[other], base.loc[other, "cell"], other), named)
            assert difference.value is not None
            assert difference.ci_low is not None
            assert difference.ci_high is not None
            shown.append(
                f"{difference.value * 100:.1f} [{difference.ci_low * 100:.1f}, {difference.ci_high * 100:.1f}]"
            )
        lines.append(f"| {recipe} | {seed} | {' | '.join(shown)} |")
    head = (
        "Drop on these sets minus the drop on `fashion_naming`, whose gain counts as a negative drop: points, 95 % "
        "intervals, clustered as manifests say."
    )
    return "\n".join(["## The interaction", "", head, "", *lines])


def _drop(folder: Path, after: str, before: str, dataset: str) -> ClusteredScores:
    """Each item's loss, clustered as the manifest says."""
    frames = [pq.read_table(folder.parent / ".cells" / f"{cell}.parquet").to_pandas() for cell in (after, before)]
    assert list(frames[0]["sample_id"]) == list(frames[1]["sample_id"])
    drop_N = frames[1]["score"].to_numpy() - frames[0]["score"].to_numpy()
    return ClusteredScores(drop_N, ways(frames[0], dataset), CHANGE)


if __name__ == "__main__":
    main()
