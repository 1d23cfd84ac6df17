"""Check the tables that commands write: their columns, complete rows, and the types of their values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from forgetbench.core.records import Axis, Decoding
from forgetbench.tables.drift import ESTIMATES
from forgetbench.tables.guard import DECISIONS

_RUN = ("run", "checkpoint", "stage", "step", "decoding", "metric")
COMPLETE = {
    "scores.csv": (*_RUN, "dataset", "text_axis", "image_axis", "cell"),
    "matrix.csv": (*_RUN, "quadrant"),
    "summary.csv": ("run", "stage", "step", "decoding"),
    "representation.csv": ("run", "step"),
    "drift.csv": ("run", "stage", "step", "decoding"),
    "continual.csv": ("run", "strategy", "tasks", "decoding", "measure"),
    "strategies.csv": ("strategy", "decoding", "measure"),
    "train.csv": ("step", "stage", "loss"),
    "guard.csv": ("run", "look", "step", "group", "budget", "over", "broken", "kept", "decision"),
}
"""Table -> columns that have a value in every row."""
_WHOLE = ("look", "looks", "step", "stage", "seed", "n", "n_clusters", "n_datasets", "n_sources", "n_images")
_NUMBERS = (
    *("value", "stderr", "ci_low", "ci_high", "chance", "base_value", "delta", "delta_stderr", "delta_ci_low"),
    *("delta_ci_high", "forgotten", "gained", "p_value", "p_holm", "mde", "unparsed", "cut_off", "label_bias"),
    *("seconds", "mix_ratio", "loss", "grad_norm", "samples_per_s", "tokens_per_s", "peak_memory_mb"),
    *("low", "high", "budget", "level", "spent"),
    *("effective_rank", "visual_drift_l1", "linear_cka", "weight_distance", "relative_distance", "changed_share"),
    *ESTIMATES,
)
_RATES = "lr_"
"""Prefix of the columns of learning rates."""
_WORDS: dict[str, set[Any]] = {
    "text_axis": set(Axis),
    "image_axis": set(Axis),
    "decoding": set(Decoding),
    "seen_in_mix": {True, False},
    **{name: {True, False} for name in ("over", "broken", "kept")},
    "decision": set(DECISIONS),
}


def problems(name: str, frame: pd.DataFrame) -> Iterator[str]:
    """The problems of a table.

    Args:
        name: name of the file.
        frame: the table as pandas reads it, with texts as texts and absent values as NaN.
    """
    missing = [column for column in COMPLETE.get(name, ()) if column not in frame]
    if missing:
        yield f"it has no column {', '.join(missing)}"
        return
    broken = frame[list(COMPLETE.get(name, ()))].isna().any(axis=1).to_numpy()
    if broken.any():
        yield f"line {int(broken.argmax()) + 2} is cut short"
    for column in frame:
        yield from _column_problems(str(column), frame[column], name == "train.csv")


def _column_problems(column: str, values: pd.Series, is_log: bool) -> Iterator[str]:
    """The first invalid value of a column; a log may contain infinite values, such as gradient norms."""
    present = values.dropna()
    if column in _WHOLE:
        fits = [
            isinstance(entry, int) or (isinstance(entry, float) and entry.is_integer()) for entry in present.tolist()
        ]
        fits = [fit and abs(entry) < 2**53 for fit, entry in zip(fits, present.tolist(), strict=True)]
        expected = "a whole number"
    elif column in _NUMBERS or column.startswith(_RATES):
        fits = [isinstance(entry, int | float) and (is_log or math.isfinite(entry)) for entry in present.tolist()]
        expected = "a number"
    elif column in _WORDS:
        fits = [entry in _WORDS[column] for entry in present.tolist()]
        expected = " or ".join(map(str, sorted(_WORDS[column])))
    else:
        return
    if not all(fits):
        place = fits.index(False)
        line, value = int(present.index[place]) + 2, present.tolist()[place]
        yield f"line {line} has {value!r} as `{column}`, where {expected} is expected"
