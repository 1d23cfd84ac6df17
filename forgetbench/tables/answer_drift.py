"""How far a checkpoint's answers are from the base's, item by item, by the log-probabilities of the options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from forgetbench.core.records import AnswerKind
from forgetbench.statistics.bounds import SHARE, Limits
from forgetbench.statistics.divergence import (
    among_outcomes,
    kl_divergence,
    log_rows,
    total_variation,
    with_rest,
)
from forgetbench.statistics.intervals import ClusteredScores
from forgetbench.statistics.strata import Floats
from forgetbench.tables.cell_view import CellView

LENGTH_NORMALISED = "lmms-eval"
"""Predictions of this source hold the mean log-probability per token, which is of no distribution."""
_DIVERGENCE: Limits = (0.0, math.inf)
_Pair: TypeAlias = tuple[Floats, Floats]


def drift_scores(name: str, cell: CellView, base: CellView) -> ClusteredScores | None:
    """One of DRIFT of every item; None where it does not apply.

    Args:
        name: of DRIFT.
        cell: a checkpoint's answers.
        base: the untouched model's, in the cell's order.
    """
    sides = (cell.frame, base.frame)
    if cell.frame.empty or any(frame["option_logprobs"].isna().any() for frame in sides):
        return None
    values_N = DRIFT[name](cell, base)
    if values_N is None or not np.isfinite(values_N).all():
        return None
    return ClusteredScores(values_N, cell.ways, SHARE if name in _SHARES else _DIVERGENCE)


def _flips(cell: CellView, base: CellView) -> Floats:
    """1 where another option is the likeliest, right or wrong."""
    changed: Floats = (cell.frame["parsed"].to_numpy() != base.frame["parsed"].to_numpy()).astype(np.float64)
    return changed


def _from_base(pair: Callable[[CellView, CellView], _Pair | None]) -> Callable[[CellView, CellView], Floats | None]:
    def divergence(cell: CellView, base: CellView) -> Floats | None:
        found = pair(cell, base)
        return None if found is None else kl_divergence(found[1], found[0])

    return divergence


def _to_base(pair: Callable[[CellView, CellView], _Pair | None]) -> Callable[[CellView, CellView], Floats | None]:
    def divergence(cell: CellView, base: CellView) -> Floats | None:
        found = pair(cell, base)
        return None if found is None else kl_divergence(*found)

    return divergence


def _total_variation(cell: CellView, base: CellView) -> Floats | None:
    pair = _options(cell, base)
    return None if pair is None else total_variation(*pair)


def _options(cell: CellView, base: CellView) -> _Pair | None:
    """Both distributions over the options, the checkpoint's first."""
    if LENGTH_NORMALISED in cell.context.settings + base.context.settings:
        return None
    return among_outcomes(_log_rows(cell)), among_outcomes(_log_rows(base))


def _answers(cell: CellView, base: CellView) -> _Pair | None:
    """Both distributions over the options and everything else that the model might begin its answer with."""
    if LENGTH_NORMALISED in cell.context.settings + base.context.settings or not _exclusive(cell):
        return None
    sides = with_rest(_log_rows(cell)), with_rest(_log_rows(base))
    return None if sides[0] is None or sides[1] is None else (sides[0], sides[1])


def _log_rows(cell: CellView) -> Floats:
    return log_rows(list(cell.frame["option_logprobs"]))


def _exclusive(cell: CellView) -> bool:
    """Whether no reply begins with two options: letters, options that end differently, or ones scored with an end."""
    if '"answer_end": true' in cell.context.settings or cell.frame["kind"].eq(AnswerKind.letter).all():
        return True
    every = {tuple(options) for options in cell.frame["options"]}
    return not any(
        longer.startswith(one)
        for options in every
        for place, one in enumerate(options)
        for other, longer in enumerate(options)
        if place != other
    )


DRIFT: dict[str, Callable[[CellView, CellView], Floats | None]] = {
    "kl_from_base": _from_base(_options),
    "kl_to_base": _to_base(_options),
    "total_variation": _total_variation,
    "flips": _flips,
    "answer_kl_from_base": _from_base(_answers),
    "answer_kl_to_base": _to_base(_answers),
}
"""Rows of scores.csv that compare a checkpoint with its base; `from` is KL(base || checkpoint)."""
_SHARES = ("total_variation", "flips")
