"""The rows of the tables that figures draw: one decoding, last checkpoints, inline data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from forgetbench.records import QUADRANTS, Decoding

TARGET = QUADRANTS[0]
QUADRANT_NAMES = {
    "id_text-id_image": "ID text, ID image",
    "id_text-ood_image": "ID text, OOD image",
    "ood_text-id_image": "OOD text, ID image",
    "ood_text-ood_image": "OOD text, OOD image",
}
_DECODING_WORDS = {
    Decoding.choice: "by likelihood over the options (choice)",
    Decoding.greedy: "by what the model writes (greedy)",
    Decoding.sample: "by what the model writes, drawn at random (sample)",
}


def primary_decoding(frame: pd.DataFrame) -> str:
    """The view that figures show: `choice` if there is one, else the first in sorted order; empty without rows."""
    if "decoding" not in frame:
        return ""
    found = sorted({str(value) for value in frame["decoding"].dropna()})
    return Decoding.choice.value if Decoding.choice.value in found else next(iter(found), "")


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


def last_stage(frame: pd.DataFrame) -> pd.DataFrame:
    """Every run's base and last stage: quadrants are relative to a stage's own target."""
    if frame.empty:
        return frame
    last = frame.groupby("run")["stage"].transform("max")
    return frame[(frame["stage"] == last) | (frame["step"] == 0)]


def last_steps(frame: pd.DataFrame) -> pd.DataFrame:
    """Every run's rows at its last trained step, variants of it included; of a run with a base only, none."""
    if frame.empty:
        return frame
    trained = frame[frame["step"] > 0]
    return trained[trained["step"] == trained.groupby("run")["step"].transform("max")] if len(trained) else trained


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
