"""Compare the strategies of continual learning: choose each one's rate by validation, write tables and figures.

rates="outputs/continual_rates outputs/continual_rates_lora"
python -m tools.continual_result --choose $rates            # the rates of every strategy, the best in bold
python -m tools.continual_result outputs/continual $rates   # writes docs/results/continual.md and its figures
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

OUT = Path(__file__).resolve().parents[1] / "docs/results/continual.md"
MEASURES = ("MFN", "MFT", "MAA", "BWT", "FWT", "forgetting")
FIGURES = {
    "continual_matrix": "Every task after every stage, order a",
    "forgetting_curves": "Every task over the stages, order a",
}
"""Figures of `forgetbench report outputs/continual` that the page shows."""


def main() -> None:
    """Print the rates, or write the page."""
    folders = [Path(word) for word in sys.argv[1:] if not word.startswith("--")]
    if "--choose" in sys.argv:
        print(_rate_table(_rates(folders)))
        return
    rates = _rates(folders[1:])
    strategies = pd.read_csv(folders[0] / "strategies.csv")
    text = "\n\n".join(
        [
            "# Continual learning on the embedded world",
            _intro(strategies, folders[0]),
            _strategies(strategies, folders[0]),
            _figures(folders[0]),
            "## Order by order",
            _orders(folders[0], strategies),
            "## Outside the sequence",
            _outside(folders[0], strategies),
            "## Learning rates",
            "Mean accuracy on the five validation sets after the last task, order a, seed 0; the best of each strategy "
            "is in bold and is the one in `conf/strategy/`.",
            _rate_table(rates),
        ]
    )
    OUT.write_text(text + "\n", "utf-8")
    print(text)


def _rates(folders: Sequence[Path]) -> pd.DataFrame:
    """A row per run: strategy, rate, validation accuracy after the last step."""
    rows = []
    for path in sorted(path for folder in folders for path in folder.glob("*/scores.csv")):
        config = json.loads((path.parent / "run.json").read_text("utf-8"))["config"]
        cells = pd.read_csv(path)
        cells = cells[(cells["step"] == cells["step"].max()) & cells["dataset"].str.endswith("_validation")]
        cells = cells[(cells["metric"] == "accuracy") & (cells["decoding"] == "choice")]
        rows.append((config["strategy"], _rate(config["recipe"]["lr"]), float(cells["value"].mean())))
    return pd.DataFrame(rows, columns=["strategy", "rate", "validation"])


def _rate(lr: float | dict[str, float]) -> str:
    return ", ".join(f"{part} {value:g}" for part, value in lr.items()) if isinstance(lr, dict) else f"{lr:g}"


def _rate_table(rates: pd.DataFrame) -> str:
    lines = ["| strategy | rate: validation accuracy, % |", "|---|---|"]
    for strategy, rows in rates.groupby("strategy", sort=False):
        best = rows["validation"].max()
        shown = [
            ("**{}: {:.1f}**" if value == best else "{}: {:.1f}").format(rate, 100 * value)
            for rate, value in sorted(zip(rows["rate"], rows["validation"], strict=True), key=lambda pair: pair[1])
        ]
        lines.append(f"| `{strategy}` | {'; '.join(shown)} |")
    return "\n".join(lines)


def _intro(strategies: pd.DataFrame, folder: Path) -> str:
    runs = len(list(folder.glob("*/run.json")))
    reference = strategies["reference"].dropna().iloc[0]
    return (
        "Made by the commands in docs/continual.md (rates, `forgetbench sweep sweep=continual threads=1`, `forgetbench "
        "report outputs/continual`), then "
        "`python -m tools.continual_result outputs/continual outputs/continual_rates outputs/continual_rates_lora`: "
        f"{runs} runs of five tasks in three orders with three seeds, 40 steps of 16 a task, 100 test items of each, "
        "likelihood over the options. Points: means over runs, plus or minus half of a 95 % interval that holds the "
        "error over items and over runs (order and seed). `run SD` is the standard deviation of MFN between runs. The "
        f"last column is the paired difference in MFN from `{reference}`, the best of the simple strategies "
        "(`seq_full`, `inc_lora`, `hybrid`, `replay`), with Holm's p over the pairs. `joint` and `zero_shot` are the "
        "bounds; the order of the tasks means nothing to them, and `joint` was run in order a alone."
    )


def _strategies(strategies: pd.DataFrame, folder: Path) -> str:
    wide = {measure: rows.set_index("strategy") for measure, rows in strategies.groupby("measure")}
    final = wide["MFN"].sort_values("value", ascending=False)
    lines = [
        f"| strategy | runs | {' | '.join(MEASURES)} | run SD | MFN less the reference |",
        "|---|---|" + "---|" * (len(MEASURES) + 2),
    ]
    for name, row in final.iterrows():
        cells = [_half(wide[measure], name) for measure in MEASURES]
        spread = "" if pd.isna(row["run_sd"]) else f"{100 * row['run_sd']:.1f}"
        difference = (
            ""
            if pd.isna(row["diff"])
            else f"{100 * row['diff']:+.1f} [{100 * row['diff_ci_low']:.1f}, {100 * row['diff_ci_high']:.1f}]"
            + ("" if pd.isna(row["p_holm"]) else f", p = {row['p_holm']:.2g}")
        )
        lines.append(f"| `{name}` | {row['n_runs']} | {' | '.join(cells)} | {spread} | {difference} |")
    return "\n".join(lines)


def _half(rows: pd.DataFrame, name: object) -> str:
    if name not in rows.index or pd.isna(rows.loc[name, "value"]):
        return ""
    row = rows.loc[name]
    half = "" if pd.isna(row["ci_low"]) else f" ± {50 * (row['ci_high'] - row['ci_low']):.1f}"
    return f"{100 * row['value']:.1f}{half}"


def _figures(folder: Path) -> str:
    shown = []
    for name, title in FIGURES.items():
        drawn = folder / f"figures/{name}.svg"
        shutil.copyfile(drawn, OUT.with_name(f"{name}.svg"))
        shown.append(f"![{title}]({name}.svg)")
    return "\n\n".join(shown)


def _runs(folder: Path) -> pd.DataFrame:
    """continual.csv of every run, with the letter of its order."""
    tables = []
    for path in sorted(folder.glob("*/continual.csv")):
        table = pd.read_csv(path)
        table["order"] = path.parent.name.partition("five_tasks_")[2][:1]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _orders(folder: Path, strategies: pd.DataFrame) -> str:
    runs = _runs(folder)
    runs = runs[runs["measure"].isin(("MFN", "BWT"))]
    means = runs.pivot_table(index="strategy", columns=["measure", "order"], values="value")
    spread = runs.pivot_table(index="strategy", columns=["measure", "order"], values="value", aggfunc="std")
    orders = sorted(set(runs["order"]))
    heads = [f"{measure}, order {order}" for measure in ("MFN", "BWT") for order in orders]
    lines = [f"| strategy | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name in _by_mfn(strategies):
        cells = []
        for key in [(measure, order) for measure in ("MFN", "BWT") for order in orders]:
            known = key in means.columns and not pd.isna(means.loc[name, key])
            cells.append(f"{100 * means.loc[name, key]:.1f} ± {100 * spread.loc[name, key]:.1f}" if known else "")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "Mean over three seeds, plus or minus their standard deviation.\n\n" + "\n".join(lines)


def _outside(folder: Path, strategies: pd.DataFrame) -> str:
    """Sets that no task trains, at the end, beside the base."""
    rows = []
    for path in sorted(folder.glob("*/scores.csv")):
        strategy = json.loads((path.parent / "run.json").read_text("utf-8"))["config"]["strategy"]
        cells = pd.read_csv(path)
        tasks = set(pd.read_csv(path.parent / "continual.csv")["task"].dropna())
        cells = cells[(cells["step"] == cells["step"].max()) & ~cells["dataset"].isin(tasks)]
        cells = cells[(cells["metric"] == "accuracy") & (cells["decoding"] == "choice")]
        rows += [(strategy, row.dataset, row.value, row.delta) for row in cells.itertuples()]
    table = pd.DataFrame(rows, columns=["strategy", "dataset", "value", "delta"])
    sets = sorted(set(table["dataset"]))
    lines = [f"| strategy | {' | '.join(f'`{dataset}`' for dataset in sets)} |", "|---|" + "---|" * len(sets)]
    for name in _by_mfn(strategies):
        cells = []
        for dataset in sets:
            dataset_rows = table[(table["strategy"] == name) & (table["dataset"] == dataset)]
            change = (
                ""
                if dataset_rows["delta"].isna().all()
                else f" ({100 * dataset_rows['delta'].mean():+.1f} ± {100 * dataset_rows['delta'].std():.1f})"
            )
            cells.append(f"{100 * dataset_rows['value'].mean():.1f}{change}")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return (
        "After the last task: the mean over runs and, in brackets, the change from the base plus or minus the standard "
        "deviation between runs.\n\n" + "\n".join(lines)
    )


def _by_mfn(strategies: pd.DataFrame) -> list[str]:
    final = strategies[strategies["measure"] == "MFN"].sort_values("value", ascending=False)
    return [str(name) for name in final["strategy"]]


if __name__ == "__main__":
    main()
