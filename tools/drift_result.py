"""Whether drift of answers on the target predicts forgetting elsewhere: a page and a figure from finished sweeps.

python -m tools.drift_result outputs/methods                     # writes docs/results/drift.md and .svg
python -m tools.drift_result outputs/methods outputs/modules --out drift.md
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from forgetbench.core.confidence import CONFIDENCE_TEXT
from forgetbench.core.records import QUADRANTS
from forgetbench.statistics.monotone import MIN_RUNS, MonotoneFit, RankDifference, monotone_fit, rank_difference
from forgetbench.tables.drift import ELSEWHERE, LEARNT, LOSSES, joined_drift
from forgetbench.terminal.wording import QUADRANT_NAMES

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs/results/drift.md"
SWEEP = ROOT / "conf/sweep/methods.yaml"
KL = "kl_from_base"
PREDICTORS = {
    KL: "KL(base \\|\\| checkpoint), options",
    "kl_to_base": "KL(checkpoint \\|\\| base), options",
    "answer_kl_from_base": "KL(base \\|\\| checkpoint), options and the rest",
    "answer_kl_to_base": "KL(checkpoint \\|\\| base), options and the rest",
    "total_variation": "total variation, options",
    "flips": "share of changed choices",
    LEARNT: "gain on the target",
    "weight_distance": "distance of all weights from the base (L2)",
    "visual_drift": "drift of hidden states at picture tokens",
}
"""Possible predictors of forgetting, all measured on the target or on the weights."""
_NUMBER_WORDS = "number_words"
_MARKERS = "osD^v"


def main() -> None:
    """Write the page and its figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="sweeps, or folders with runs that are scored")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    points = load(given.folders)
    if points.empty:
        raise SystemExit("No drift.csv with drift and losses in these folders: `forgetbench score run=...` makes it.")
    text = page(points, number_words(given.folders), given.out.stem, " ".join(map(str, given.folders)))
    given.out.write_text(text, "utf-8")
    _draw(points, given.out.with_suffix(".svg"))
    print(given.out.read_text("utf-8"))


def load(folders: Sequence[Path]) -> pd.DataFrame:
    """One row per checkpoint as trained of every run: drift, losses, gain, weight distance and visual drift."""
    frames = []
    for folder, path in _tables(folders, "drift.csv"):
        rows = joined_drift([path])
        rows = rows[rows["variant"].isna() & rows[KL].notna() & rows[ELSEWHERE].notna()]
        measured = path.with_name("representation.csv")
        keys = ["stage", "step"]
        rows = rows.merge(_representation(measured), on=keys, how="left") if measured.is_file() else rows
        frames.append(rows.assign(run=f"{folder.name}/{path.parent.name}"))
    if not frames:
        return pd.DataFrame()
    points = pd.concat(frames, ignore_index=True)
    points = points.reindex(columns=[*dict.fromkeys([*points.columns, *PREDICTORS])])
    # The same training in two sweeps counts once.
    points = points.drop_duplicates([name for name in points.columns if name != "run"], ignore_index=True)
    points["is_last"] = points["step"] == points.groupby("run")["step"].transform("max")
    points["lr"] = points["lr"].astype(str)
    several = points["parts"].nunique() > 1
    points["label"] = points["method"] + (" (" + points["parts"].astype(str) + ")" if several else "")
    return points


def _tables(folders: Sequence[Path], name: str) -> list[tuple[Path, Path]]:
    return [(folder, path) for folder in folders for path in sorted({*folder.glob(f"*/{name}")})]


def _representation(path: Path) -> pd.DataFrame:
    """Total weight distance, and visual drift as a mean over sets and layers, of every checkpoint as trained."""
    rows = pd.read_csv(path, dtype={"variant": str})
    rows = rows[rows["variant"].isna()]
    by_step = rows.groupby(["stage", "step"])
    measures = pd.DataFrame(
        {
            "weight_distance": by_step["weight_distance"].apply(
                lambda distances: np.sqrt((distances.dropna() ** 2).sum())
            ),
            "visual_drift": by_step["visual_drift_l1"].mean(),
        }
    )
    return measures.reset_index()


def number_words(folders: Sequence[Path]) -> pd.DataFrame:
    """The rows of `number_words` at every run's last checkpoint."""
    frames = [pd.read_csv(path) for _, path in _tables(folders, "scores.csv")]
    rows = pd.concat(frames, ignore_index=True)
    last = rows["step"] == rows.groupby("run")["step"].transform("max")
    return rows[last & (rows["step"] > 0) & rows["variant"].isna() & (rows["metric"] == _NUMBER_WORDS)]


def page(points: pd.DataFrame, words: pd.DataFrame, stem: str, folders: str) -> str:
    """The whole page."""
    parts = [
        "# Does drift of answers on the target predict forgetting elsewhere?",
        _intro(points, folders),
        f"![Loss elsewhere against drift on the target]({stem}.svg)",
        _reading(points),
        _predictors(points),
        _quadrants(points),
        _methods(points),
        _words(words),
        _claims(),
        _runs(points),
    ]
    return "\n\n".join(parts) + "\n"


def _intro(points: pd.DataFrame, folders: str) -> str:
    return (
        f"Made from {points['run'].nunique()} runs with {len(points)} checkpoints by "
        f"`python -m tools.drift_result {folders}`, which reads their `drift.csv` and `representation.csv`. Drift is "
        "measured on the target's own items, from the log-probabilities of the options alone; "
        "[statistics.md](../statistics.md#drift-of-answers) has the "
        "formulas. Forgetting is the loss of accuracy on the source sets, all of them in the three other quadrants. "
        f"Figures are Spearman's rank correlations with {CONFIDENCE_TEXT} intervals from a bootstrap of whole runs. "
        "They are about other runs of this kind on the same items: all runs share the base, the items and the world. "
        '"Last" is of last checkpoints, one a run. "Within rates" takes ranks among runs of one learning rate, "rates '
        'and steps" among checkpoints of one rate at one step. These two hold fixed how fast and how long a run '
        "trained; what is left is the method, the parts and the seed."
    )


def _stratified(points: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, list[str] | None]]:
    """Views of the points: the rows, and the strata within which ranks are taken."""
    last = points[points["is_last"]]
    return {
        "all": (points, None),
        "last": (last, None),
        "last, within rates": (last, last["lr"].tolist()),
        "rates and steps": (points, (points["lr"] + " at " + points["step"].astype(str)).tolist()),
        "within methods": (points, points["label"].tolist()),
    }


def _fit(rows: pd.DataFrame, strata: list[str] | None, predictor: str = KL, loss: str = ELSEWHERE) -> MonotoneFit:
    x, y = (rows[name].astype("float64").to_numpy(na_value=np.nan) for name in (predictor, loss))
    return monotone_fit(x, y, rows["run"].tolist(), strata)


def _less_than(rows: pd.DataFrame, strata: list[str] | None, other: str) -> RankDifference:
    x, second, y = (rows[name].astype("float64").to_numpy(na_value=np.nan) for name in (KL, other, ELSEWHERE))
    return rank_difference(x, second, y, rows["run"].tolist(), strata)


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    return f"{value:+.2f}" + ("" if low is None or high is None else f" [{low:+.2f}, {high:+.2f}]")


def _rho(fit: MonotoneFit) -> str:
    return _interval(fit.rho, fit.rho_low, fit.rho_high)


def _is_above(fit: MonotoneFit) -> bool:
    return fit.rho_low is not None and fit.rho_low > 0


def _reading(points: pd.DataFrame) -> str:
    """The reading of the figures, by rules that were fixed in advance."""
    views = _stratified(points)
    fits = {name: _fit(rows, strata) for name, (rows, strata) in views.items()}
    lines = ["## In words", ""]
    whole, fixed = fits["all"], fits["rates and steps"]
    share = "" if whole.explained is None else f"; a never-falling curve explains {100 * whole.explained:.0f} %"
    lines.append(
        f"- Over all checkpoints the KL divergence from the base and the loss elsewhere have a rank correlation of "
        f"{_rho(whole) or 'unknown size'}{share} of the variance of the loss, in these same points."
    )
    if whole.rho_low is None:
        lines.append(f"- There are too few runs for an interval (at least {MIN_RUNS}): nothing follows.")
    elif fixed.rho_low is None:
        lines.append(
            "- At the same rate and step there are too few runs to say more: it may be a matter of larger steps."
        )
    elif _is_above(whole) and not _is_above(fixed):
        lines.append(
            "- **At the same rate and step it does not hold beyond its error** "
            f"({_rho(fixed) or 'unknown'}). What all checkpoints show may then be no more than that larger steps, and "
            "more of them, do more of everything."
        )
    elif _is_above(fixed):
        lines.append(
            f"- It holds at the same rate and step, too ({_rho(fixed)}): of runs that trained as fast and as long, "
            "those that drifted more on the target forgot more elsewhere. It is not only a matter of larger steps."
        )
    else:
        lines.append("- It cannot be told from no relation beyond its error.")
    for other in (LEARNT, "weight_distance", "visual_drift"):
        gap = _less_than(*views["rates and steps"], other)
        if gap.low is not None and gap.high is not None:
            verdict = "orders the losses better than" if gap.low > 0 else "orders them worse than"
            verdict = "cannot be told apart from" if gap.low <= 0 <= gap.high else verdict
            lines.append(
                f"- At the same rate and step it {verdict} the {PREDICTORS[other]} as a predictor: difference of "
                f"correlations {_interval(gap.value, gap.low, gap.high)}."
            )
    return "\n".join(lines)


def _predictors(points: pd.DataFrame) -> str:
    views = _stratified(points)
    lines = [
        "## Predictors of the loss elsewhere",
        "",
        'R2 is the share of the variance that a never-falling curve explains in the points of "all"; it is above 0 '
        "also for a figure that says nothing, since the curve is chosen on these points.",
        "",
        f"| measured on the target or the weights | points | {' | '.join(views)} | R2 |",
        "|---|---|" + "---|" * len(views) + "---|",
    ]
    for name, title in PREDICTORS.items():
        fits = [_fit(rows, strata, name) for rows, strata in views.values()]
        if not fits[0].n:
            continue
        explained = "" if fits[0].explained is None else f"{fits[0].explained:.2f}"
        lines.append(f"| {title} | {fits[0].n} | {' | '.join(map(_rho, fits))} | {explained} |")
    return "\n".join(lines)


def _quadrants(points: pd.DataFrame) -> str:
    views = _stratified(points)
    lines = [
        "## By quadrant",
        "",
        "KL(base \\|\\| checkpoint) on the target's items against the loss in each quadrant; in the target's own one "
        "(ID text, ID image) a loss is rather a gain.",
        "",
        f"| quadrant | {' | '.join(views)} |",
        "|---|" + "---|" * len(views),
    ]
    for quadrant in QUADRANTS:
        fits = [_fit(rows, strata, loss=LOSSES[quadrant]) for rows, strata in views.values()]
        lines.append(f"| {QUADRANT_NAMES[quadrant]} | {' | '.join(map(_rho, fits))} |")
    return "\n".join(lines)


def _methods(points: pd.DataFrame) -> str:
    """Every run's last checkpoint."""
    rates = sorted(set(points["lr"]), key=_as_number)
    last = points[points["is_last"]]
    lines = [
        "## Methods",
        "",
        "At last checkpoints: KL(base \\|\\| checkpoint) on the target in nats / gain on the target / loss elsewhere, "
        "both in points; means over seeds where there are several.",
        "",
        f"| method | {' | '.join(rates)} |",
        "|---|" + "---|" * len(rates),
    ]
    for label in sorted(set(last["label"])):
        cells = []
        for lr in rates:
            rows = last[(last["label"] == label) & (last["lr"] == lr)]
            mean = rows[[KL, LEARNT, ELSEWHERE]].astype("float64").mean()
            cells.append(
                f"{mean[KL]:.2f} / {100 * mean[LEARNT]:+.1f} / {100 * mean[ELSEWHERE]:.1f}" if len(rows) else ""
            )
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _words(words: pd.DataFrame) -> str:
    head = "## Number words in free replies\n\n"
    if words.empty:
        return head + (
            "Not measured here: these matrices have no set of open questions, so nothing was written freely. The "
            "metric `number_words` needs one (such as `emoji_caption`) and `matrix.decodings=[choice,greedy]`."
        )
    lines = [
        "Share of number words in replies to questions that ask for none, last checkpoints; points of change.",
        "",
        "| trained on | method, parts | lr | seed | set | base, % | last, % | change |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in words.sort_values(["target", "dataset", "lr", "method", "parts", "seed"]).to_dict("records"):
        ends = [None if pd.isna(row[name]) else 100 * row[name] for name in ("delta", "delta_ci_low", "delta_ci_high")]
        shares = f"{100 * row['base_value']:.1f} | {100 * row['value']:.1f} | {_interval(*ends)}"
        description = f"{row['target']} | {row['method']}, {row['parts']} | {row['lr']} | {row['seed']}"
        lines.append(f"| {description} | {row['dataset']} | {shares} |")
    return head + "\n".join(lines)


def _claims() -> str:
    return (
        "## What was published\n\n"
        "Shenfeld et al. 2025 (arXiv:2509.04259) report that KL(base || checkpoint) on the new task predicts how much "
        "is forgotten, whatever the way of training, where distances of weights do not. Zhu et al. 2025 "
        "(arXiv:2510.08564) trace forgetting to a shift of the output distribution; a probe that counts number words "
        "moves with it. "
        "Both are about other models and data, and larger ones. What is here says whether their claim holds in this "
        "small world, on multiple choice; it neither confirms nor refutes theirs. A rank correlation over runs that "
        "were made by a grid is also about that grid: with other rates and methods it is another."
    )


def _runs(points: pd.DataFrame) -> str:
    """The runs, and the points of the sweep that are missing."""
    runs = points.drop_duplicates("run")
    whole = runs[~runs["parts"].astype(str).str.contains(".", regex=False)]  # no modules of a part
    done = {(str(row["method"]), _as_number(row["lr"]), int(row["seed"])) for row in whole.to_dict("records")}
    wanted = _wanted()
    lacking: dict[tuple[float, int], list[str]] = {}
    for method, lr, seed in wanted:
        if (method, lr, seed) not in done:
            lacking.setdefault((lr, seed), []).append(method)
    lines = [
        "## What was run, and what was not",
        "",
        f"{len(runs)} runs: methods {', '.join(sorted(set(runs['label'])))}; rates "
        f"{', '.join(sorted(set(runs['lr']), key=_as_number))}; "
        f"seeds {', '.join(map(str, sorted(set(runs['seed']))))}; "
        f"target {', '.join(sorted(set(runs['target'])))}; checkpoints at steps "
        f"{', '.join(map(str, sorted(set(points['step']))))}.",
        "",
    ]
    if not lacking:
        return "\n".join([*lines, "Every point of `sweep=methods` is among them."])
    lines.append("Points of `sweep=methods` that are not among them:")
    lines.append("")
    n_methods = len({method for method, _, _ in wanted})
    for (lr, seed), methods in sorted(lacking.items(), key=lambda item: (item[0][1], item[0][0])):
        which = "all methods" if len(methods) == n_methods else ", ".join(methods)
        lines.append(f"- seed {seed}, rate {lr:g}: {which}")
    lines += ["", "Variants made after training (`wise_ft`, `ties` and the like) are left out of the correlations."]
    return "\n".join(lines)


def _wanted() -> list[tuple[str, float, int]]:
    params: Mapping[str, object] = yaml.safe_load(SWEEP.read_text("utf-8"))["hydra"]["sweeper"]["params"]
    methods, rates, seeds = (str(params[name]).split(",") for name in ("method", "recipe.lr", "seed"))
    return [(method, float(lr), int(seed)) for method, lr, seed in product(methods, rates, seeds)]


def _as_number(lr: str) -> float:
    """A rate to sort by; several rates of one run come last."""
    try:
        return float(lr)
    except ValueError:
        return float("inf")


def _draw(points: pd.DataFrame, path: Path) -> None:
    """Loss elsewhere against drift: every checkpoint, and last ones; a colour per method, a marker per rate.

    Labels beyond the colours take them again, hollow.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "forgetbench"  # the same figure, the same bytes
    from matplotlib import pyplot

    views = {"every checkpoint": points, "last checkpoints": points[points["is_last"]]}
    if points["is_last"].all():
        del views["every checkpoint"]
    figure, panels = pyplot.subplots(
        1, len(views), figsize=(11.5, 5.5), layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    rates, labels = sorted(set(points["lr"]), key=_as_number), sorted(set(points["label"]))
    colours = pyplot.get_cmap("tab20")

    def look(number: int) -> dict[str, object]:
        return {"color": colours(number % 20), "fillstyle": "none" if number >= 20 else "full"}

    for panel, (title, rows) in zip(panels[0], views.items(), strict=True):
        for number, label in enumerate(labels):
            for place, lr in enumerate(rates):
                points_of_rate = rows[(rows["label"] == label) & (rows["lr"] == lr)]
                x, y = points_of_rate[KL].astype("float64"), points_of_rate[ELSEWHERE].astype("float64") * 100
                panel.plot(x, y, _MARKERS[place % len(_MARKERS)], ms=5, alpha=0.8, **look(number))
        panel.axhline(0, color="grey", lw=0.8, ls="--")
        panel.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
        panel.set_xlim(left=0)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("KL(base || checkpoint) on the target, nats (square-root scale)")
        panel.grid(alpha=0.3)
    panels[0, 0].set_ylabel("lost on the source sets, points")
    keys = [
        *(panels[0, 0].plot([], [], "o", label=label, **look(number))[0]
          for number, label in enumerate(labels)),
        *(panels[0, 0].plot([], [], _MARKERS[place % len(_MARKERS)], color="grey", label=f"rate {lr}")[0]
          for place, lr in enumerate(rates)),
    ]  # fmt: skip
    figure.legend(handles=keys, loc="outside right upper", fontsize=8)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
