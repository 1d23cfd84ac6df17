"""The summary of a run or a sweep as plain rows, tab-separated or JSON: for programs, where people see a table."""

from __future__ import annotations

import json
import sys
from typing import Any

import pandas as pd

from forgetbench.core.streams import has_all_letters, visible_json
from forgetbench.tables.last import last_stage, last_step
from forgetbench.terminal.console import console

PROBE = "probe:"
"""Before the dataset's name in `quadrant`, in rows of a class-label probe."""
_PROBE_METRICS = ("accuracy", "mischoice", "class_name_effect")
_TEXTS = ("run", "checkpoint", "variant", "quadrant", "decoding", "metric")
_FLAGS = ("seen_in_mix",)
_INTEGERS = ("n_datasets", "n")
_FLOATS = ("base_value", "value", "delta", "delta_ci_low", "delta_ci_high", "p_value", "p_holm")
_NOISE = 1e-12
PLAIN_COLUMNS = (*_TEXTS, *_FLAGS, *_INTEGERS, *_FLOATS)


def plain_rows(matrix: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Each run's last checkpoint and its variants: a row per quadrant or probe, decoding and metric.

    Args:
        matrix: matrix.csv of one run or of several.
        scores: scores.csv of the same.

    Returns:
        PLAIN_COLUMNS, with pandas' nullable types. `variant` is absent where a checkpoint is as training left it.
        `quadrant` is one of `records.QUADRANTS`, or `probe:` and a dataset, which has its accuracy, mischoice and,
        if it is known, class_name_effect.
    """
    frame = pd.concat([_typed(_last_rows(matrix)), _typed(_probe_rows(_last_rows(scores)))], ignore_index=True)
    order = ["run", "variant", "checkpoint", "quadrant", "seen_in_mix", "decoding", "metric"]
    return frame.sort_values(order, kind="stable", ignore_index=True, na_position="first")


def _last_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of each run's last checkpoint and of every variant's last one, in the run's last stage."""
    return last_step(last_stage(frame), of_each_variant=True)


def to_tsv(frame: pd.DataFrame) -> str:
    """Tab-separated with a header: empty where absent, floats to 12 significant digits.

    That takes away the noise of binary arithmetic (0.1 + 0.2 is 0.3). What is closer to 0 than 1e-12 is 0; p-values are
    written in full.
    """
    return _rounded(frame).to_csv(sep="\t", index=False, lineterminator="\n")


def to_json(frame: pd.DataFrame) -> str:
    """An array with an object per row, null where a value is absent; floats as in `to_tsv`."""
    frame = _rounded(frame)
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return visible_json(json.dumps(rows, indent=2, ensure_ascii=not has_all_letters(), allow_nan=False)) + "\n"


def _rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """The same columns and kinds with floats to 12 significant digits."""
    kinds = pd.api.types
    floats = [
        name
        for name, kind in frame.dtypes.items()
        if (kinds.is_object_dtype(kind) or kinds.is_float_dtype(kind)) and not str(name).startswith("p_")
    ]
    short = {str(name): [_short(value) for value in frame[name]] for name in floats}
    return frame.assign(**{name: pd.Series(short[name], frame.index, frame[name].dtype) for name in short})


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return 0.0 if abs(value) < _NOISE else float(f"{value:.12g}")


def _probe_rows(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows of class-label probes, which are the datasets with a mischoice."""
    probes = set(scores.loc[scores["metric"] == "mischoice", "dataset"])
    rows = scores[scores["dataset"].isin(probes) & scores["metric"].isin(_PROBE_METRICS)]
    return rows.assign(quadrant=PROBE + rows["dataset"].astype(str), n_datasets=1)


def _typed(rows: pd.DataFrame) -> pd.DataFrame:
    """PLAIN_COLUMNS with fixed types, whatever was read: a file without variants has a column of floats."""
    frame = rows.reindex(columns=list(PLAIN_COLUMNS)).reset_index(drop=True)
    frame["variant"] = frame["variant"].astype(object).where(frame["variant"] != "", None)
    kinds = {_TEXTS: "string", _FLAGS: "boolean", _INTEGERS: "Int64", _FLOATS: "Float64"}
    return frame.astype({name: kind for names, kind in kinds.items() for name in names})


def written_for_program(rows: pd.DataFrame, as_json: bool) -> bool:
    """Write rows for a program (JSON if asked for, tab-separated in a pipe); whether a program reads them."""
    if as_json or not console.is_terminal:
        sys.stdout.write(to_json(rows) if as_json else to_tsv(rows))
        return True
    return False
