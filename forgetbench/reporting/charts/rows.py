"""The rows of the tables that figures draw: one decoding, last checkpoints, inline data."""

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
    """The view that figures show: `choice` if there is one, else the first in sorted order; empty without rows."""
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

    The base's own rows are placed relative to the first stage's target. One is kept where the last checkpoint has
    that target and is compared with that value; elsewhere the last checkpoint's `base_value` is the base, without an
    interval. A run with nothing trained keeps its base.

    Args:
        frame: Rows of one decoding.
        keys: What names a score within a run.
    """
    if frame.empty:
        return frame
    own = last_stage(frame)
    is_trained = own["step"] > 0
    own = own[is_trained | ~own["run"].isin(own.loc[is_trained, "run"])]
    trained = own[own["step"] > 0].assign(is_edited=own["variant"] != "")
    if trained.empty:
        return own
    names = ["run", *keys]
    ends = trained.sort_values(["is_edited", "step"], ascending=[False, True], kind="stable")
    ends = ends.drop(columns="is_edited").drop_duplicates(names, keep="last").set_index(names)
    base = base_rows(frame).set_index(names)
    base = base[base.index.isin(ends.index)]
    compared = ends.loc[base.index]
    is_kept = pd.Series(True, base.index)
    if "target" in frame:
        is_kept &= base["target"] == compared["target"]
    if "base_value" in frame:
        is_kept &= ~((base["value"] - compared["base_value"]).abs() > _SAME)
    base = base[is_kept]
    made = ends[~ends.index.isin(base.index)]
    made = made[made["base_value"].notna()] if "base_value" in frame else made.iloc[:0]
    as_base = {"value": made.get("base_value"), "step": 0, "stage": 0, "variant": "", "ci_low": None, "ci_high": None}
    parts = [base, made.assign(**as_base), own.set_index(names)]
    return pd.concat([part for part in parts if len(part)]).reset_index()[list(frame.columns)]


def targets_of(frame: pd.DataFrame) -> list[str]:
    """What runs were trained on, sorted; a single empty text where the table does not say."""
    if "target" not in frame:
        return [""]
    return sorted({str(name) for name in frame.loc[frame["step"] > 0, "target"].dropna()}) or [""]


def of_target(frame: pd.DataFrame, target: str) -> pd.DataFrame:
    """Rows of one target; all rows of a table that does not say."""
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
    """` (mean over seeds)` where any row is one."""
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
    """Columns of a table as the chart's own data, to five digits; absent values are left out."""
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
