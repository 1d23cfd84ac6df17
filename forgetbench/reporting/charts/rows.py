"""Rows of the tables for figures: the primary decoding, last checkpoints, inline data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from forgetbench.core.records import QUADRANTS, Decoding
from forgetbench.tables.last import last_stage, last_step
from forgetbench.terminal.wording import first_decoding

TARGET = QUADRANTS[0]
_SAME = 1e-9
"""Two means of the same scores may differ by rounding."""
_DECODING_WORDS = {
    Decoding.choice: "by likelihood over the options (choice)",
    Decoding.greedy: "by what the model writes (greedy)",
    Decoding.sample: "by what the model writes, drawn at random (sample)",
}


def primary_decoding(frame: pd.DataFrame) -> str:
    """The decoding that figures show: `choice` if present, else the first in sorted order; empty without rows."""
    if "decoding" not in frame:
        return ""
    return first_decoding(frame["decoding"].dropna())


def decoding_words(decoding: str) -> str:
    """How answers were read, as a caption says it."""
    return _DECODING_WORDS.get(Decoding(decoding), decoding) if decoding in set(Decoding) else decoding


def in_primary_decoding(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Rows of the primary decoding with `variant` as text; none if the frame lacks one of the columns."""
    if frame.empty or not {"recipe", "decoding", *columns} <= set(frame):
        return frame.iloc[:0]
    return with_text(frame[frame["decoding"] == primary_decoding(frame)])


def with_text(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy whose `variant` and `mix` are empty text where there is none, and `seen_in_mix` a plain bool."""
    for name in ("variant", "mix"):
        if name in frame:
            column = frame[name].astype(object)
            frame = frame.assign(**{name: column.where(column.notna(), "").astype(str)})
    if "seen_in_mix" in frame:
        frame = frame.assign(seen_in_mix=frame["seen_in_mix"].astype(str).str.lower().isin({"true", "1", "1.0"}))
    return frame


def with_base(frame: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Every run's last stage, and its base at step 0 in the quadrants of that stage's target.

    The quadrants of the base's rows are relative to the first stage's target. A base row is kept where the last
    checkpoint has the same target and is compared with the same value; elsewhere the last checkpoint's `base_value`
    is the base, without an interval. A run with nothing trained keeps its base.

    Args:
        frame: Rows of one decoding.
        keys: Columns that identify a score within a run.
    """
    if frame.empty:
        return frame
    last_rows = last_stage(frame)
    is_trained = last_rows["step"] > 0
    last_rows = last_rows[is_trained | ~last_rows["run"].isin(last_rows.loc[is_trained, "run"])]
    trained = last_rows[last_rows["step"] > 0].assign(is_edited=last_rows["variant"] != "")
    if trained.empty:
        return last_rows
    names = ["run", *keys]
    ends = trained.sort_values(["is_edited", "step"], ascending=[False, True], kind="stable")
    ends = ends.drop(columns="is_edited").drop_duplicates(names, keep="last").set_index(names)
    base = base_rows(frame).set_index(names)
    base = base[base.index.isin(ends.index)]
    compared = ends.loc[base.index]
    is_consistent = pd.Series(True, base.index)
    if "target" in frame:
        is_consistent &= base["target"] == compared["target"]
    if "base_value" in frame:
        is_consistent &= ~((base["value"] - compared["base_value"]).abs() > _SAME)
    base = base[is_consistent]
    implied = ends[~ends.index.isin(base.index)]
    implied = implied[implied["base_value"].notna()] if "base_value" in frame else implied.iloc[:0]
    as_base = {
        "value": implied.get("base_value"),
        "step": 0,
        "stage": 0,
        "variant": "",
        "ci_low": None,
        "ci_high": None,
    }
    parts = [base, implied.assign(**as_base), last_rows.set_index(names)]
    return pd.concat([part for part in parts if len(part)]).reset_index()[list(frame.columns)]


def targets_of(frame: pd.DataFrame) -> list[str]:
    """Targets of the runs, sorted; a single empty text if the table has none."""
    if "target" not in frame:
        return [""]
    return sorted({str(name) for name in frame.loc[frame["step"] > 0, "target"].dropna()}) or [""]


def of_target(frame: pd.DataFrame, target: str) -> pd.DataFrame:
    """Rows of a target; all rows if `target` is empty."""
    return frame[frame["target"] == target] if target else frame


def last_steps(frame: pd.DataFrame) -> pd.DataFrame:
    """Every run's rows at its last trained step, variants of it included; of a run with a base only, none."""
    return frame if frame.empty else last_step(frame[frame["step"] > 0])


def base_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the untouched model."""
    return frame[(frame["step"] == 0) & (frame["variant"] == "")]


def seed_means(frame: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Mean over seeds of some columns per key, with `n_seeds`."""
    grouped = frame.groupby(list(keys), sort=False, dropna=False)
    means = grouped[list(values)].mean()
    means["n_seeds"] = grouped["run"].nunique()
    return means.reset_index()


def over_seeds(n_seeds: Iterable[float]) -> str:
    """` (mean over seeds)` if any row is a mean."""
    return " (mean over seeds)" if any(n > 1 for n in n_seeds) else ""


def percentages(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Beside all columns, new ones with the percentages of old ones, which are fractions of 1."""
    return frame.assign(**{new: 100 * pd.to_numeric(frame[old], errors="coerce") for new, old in columns.items()})


def extent(frame: pd.DataFrame, columns: Sequence[str], guide: float) -> list[float]:
    """Lowest and highest of some columns and a guide."""
    return [
        min([guide, *(float(frame[name].min()) for name in columns if frame[name].notna().any())]),
        max([guide, *(float(frame[name].max()) for name in columns if frame[name].notna().any())]),
    ]


def inline(frame: pd.DataFrame, columns: Sequence[str]) -> alt.InlineData:
    """Columns of a table as inline data of a chart, to five digits; absent values are left out."""
    records = frame[list(columns)].to_dict("records")
    # Altair copies lists again with every layer and panel, and tuples never.
    return alt.InlineData(values=tuple(_record(record) for record in records))


def _record(record: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): _plain(value) for name, value in record.items() if not pd.isna(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, str | bool):
        return value
    number = float(value)
    if number.is_integer():
        return int(number)
    return round(number, 4 - math.floor(math.log10(abs(number))))
