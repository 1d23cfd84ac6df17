"""Scores in the layout of lm-evaluation-harness's results JSON, for the tools that read it.

The keys are those of lm-eval 0.4.13 (lm_eval/result_schema.py, lm_eval/evaluator_utils.py). What it has and scores.csv
has not stays out: versions of tasks, sizes of full splits, and lm-eval's own version, for this is not lm-eval.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from forgetbench.core.errors import UserError
from forgetbench.core.files import remove_all, write_json
from forgetbench.core.records import Decoding, Metric
from forgetbench.tables.answer_drift import DRIFT

NO_SETTINGS: Mapping[str, object] = MappingProxyType({})

_HIGHER_IS_BETTER = {
    **dict.fromkeys(("acc", "exact_match", *(metric.value for metric in Metric)), True),
    **dict.fromkeys(("mischoice", "mischoice_of_wrong"), False),
}
_CHECKPOINT = ("run", "checkpoint", "variant")
_TRAINED = ("target", "method", "parts", "lr", "mix", "mix_ratio", "seed", "stage", "step", *_CHECKPOINT)
_PLACED = ("image_domain", "text_task", "text_axis", "image_axis", "quadrant", "seen_in_mix", "chance")

_Row = Mapping[Hashable, Any]


def lm_eval_results(scores: pd.DataFrame, step: int, settings: Mapping[str, object] = NO_SETTINGS) -> dict[str, Any]:
    """One checkpoint's scores as lm-eval would lay them out; there is no clock in it.

    Args:
        scores: scores.csv of one run.
        step: the checkpoint's.
        settings: what `config` should say beside what the rows do, such as batch_size or limit; but `date`, seconds
            since 1970, has its place outside.

    Raises:
        UserError: that step has no rows, or those of several checkpoints.
    """
    scored = scores[(scores["step"] == step) & ~scores["metric"].isin(list(DRIFT))]  # of a pair, not of one model
    rows = [_present(row) for row in scored.to_dict("records")]
    checkpoints = sorted({_name(row) for row in rows})
    if len(checkpoints) != 1:
        raise UserError(
            f"Expected the scores of one checkpoint at step {step}, found {', '.join(checkpoints) or 'none'} (steps: "
            f"{', '.join(map(str, sorted(set(scores['step'])))) or 'none'}). Give the rows of one run and variant."
        )
    tasks: dict[str, list[_Row]] = {}
    for row in rows:
        tasks.setdefault(str(row["dataset"]), []).append(row)
    config = {
        "model": "forgetbench",
        "model_args": {"pretrained": rows[0].get("model", ""), **_fields(rows[0], _TRAINED)},
        **{key: value for key, value in settings.items() if key != "date"},
    }
    return {
        "results": {task: {"alias": task, **_values(rows_of_task)} for task, rows_of_task in tasks.items()},
        "group_subtasks": {task: [] for task in tasks},
        "configs": {task: _task_config(task, rows_of_task) for task, rows_of_task in tasks.items()},
        "versions": {},  # lm-eval's tables then say N/A
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {task: _directions(rows_of_task) for task, rows_of_task in tasks.items()},
        # As lm-eval counts: the most items of any metric, since some leave items out.
        "n-samples": {
            task: {"effective": max(row["n"] for row in rows_of_task)} for task, rows_of_task in tasks.items()
        },
        "config": config,
        "model_source": "forgetbench",
        "model_name": checkpoints[0],
        **{key: value for key, value in settings.items() if key == "date"},
    }


def write_lm_eval(scores: pd.DataFrame, folder: Path, settings: Mapping[str, object] = NO_SETTINGS) -> list[Path]:
    """Write `<folder>/lm_eval/<checkpoint>/results.json` for every checkpoint of a run, edited ones beside it.

    Raises:
        UserError: the scores are of several runs.
    """
    results = {}
    for _, rows in scores.groupby(["step", "variant"], dropna=False):
        result = lm_eval_results(rows, int(rows["step"].iloc[0]), settings)
        name = str(result["config"]["model_args"]["checkpoint"])
        results[folder / "lm_eval" / name / "results.json"] = result
    for path, result in results.items():
        write_json(path, result)
    others = set(folder.glob("lm_eval/*/results.json")) - set(results)  # of checkpoints that are not asked for any more
    remove_all(others, folder)
    return list(results)


def _present(row: _Row) -> _Row:
    """What a row holds; a table read from a file and one still in memory have different marks for absent values."""
    return {key: value for key, value in row.items() if not pd.isna(value) and value != ""}


def _fields(row: _Row, names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}


def _name(row: _Row) -> str:
    return "/".join(map(str, _fields(row, _CHECKPOINT).values()))


def _metric(row: _Row) -> str:
    """In lm-eval's terms: `acc` is of the candidate with the highest likelihood, as in its multiple-choice tasks.

    `exact_match` is of what the model writes, as in its generative ones; metrics but accuracy keep their names.
    """
    if row["metric"] != "accuracy":
        return str(row["metric"])
    return "acc" if row["decoding"] == Decoding.choice else "exact_match"


def _filter(row: _Row) -> str:
    """How an answer was taken from the response; with a name for each decoding, one task holds them all."""
    return "none" if row["decoding"] == Decoding.choice else str(row["decoding"])


def _values(rows: Sequence[_Row]) -> dict[str, object]:
    """`metric,filter` -> value; as in lm-eval, a value without a standard error has "N/A" for it."""
    values: dict[str, object] = {}
    for row in rows:
        if "value" in row:
            values[f"{_metric(row)},{_filter(row)}"] = row["value"]
            values[f"{_metric(row)}_stderr,{_filter(row)}"] = row.get("stderr", "N/A")
    return values


def _directions(rows: Sequence[_Row]) -> dict[str, bool]:
    metrics = {_metric(row) for row in rows if "value" in row}
    return {metric: _HIGHER_IS_BETTER[metric] for metric in sorted(metrics & set(_HIGHER_IS_BETTER))}


def _task_config(task: str, rows: Sequence[_Row]) -> dict[str, Any]:
    chosen = any(row["decoding"] == Decoding.choice for row in rows)
    directions = _directions(rows)
    return {
        "task": task,
        "output_type": "multiple_choice" if chosen else "generate_until",
        "num_fewshot": 0,
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": higher}
            for metric, higher in directions.items()
        ],
        "metadata": {
            **{key: value for row in rows for key, value in _fields(row, _PLACED).items()},
            "cells": {_filter(row): row["cell"] for row in rows if "cell" in row},
        },
    }
