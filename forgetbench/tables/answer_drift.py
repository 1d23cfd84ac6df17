"""Distance of a checkpoint's answers from the base's, item by item, by the log-probabilities of the options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from forgetbench.core.records import AnswerKind
from forgetbench.statistics.bounds import SHARE, Limits
from forgetbench.statistics.divergence import (
    kl_divergence,
    logprob_matrix,
    normalise_outcomes,
    total_variation,
    with_remainder,
)
from forgetbench.statistics.intervals import ClusteredScores
from forgetbench.statistics.strata import Floats
from forgetbench.tables.cell_view import CellView

LENGTH_NORMALISED = "lmms-eval"
"""Predictions of this source hold the mean log-probability per token, which forms no distribution."""
_DIVERGENCE: Limits = (0.0, math.inf)
_Pair: TypeAlias = tuple[Floats, Floats]


def drift_scores(name: str, cell: CellView, base: CellView) -> ClusteredScores | None:
    """A drift measure of every item; None where it does not apply.

    Args:
        name: key of DRIFT.
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


def _kl_from_base(
    read_pair: Callable[[CellView, CellView], _Pair | None],
) -> Callable[[CellView, CellView], Floats | None]:
    def divergence(cell: CellView, base: CellView) -> Floats | None:
        pair = read_pair(cell, base)
        return None if pair is None else kl_divergence(pair[1], pair[0])

    return divergence


def _kl_to_base(
    read_pair: Callable[[CellView, CellView], _Pair | None],
) -> Callable[[CellView, CellView], Floats | None]:
    def divergence(cell: CellView, base: CellView) -> Floats | None:
        pair = read_pair(cell, base)
        return None if pair is None else kl_divergence(*pair)

    return divergence


def _total_variation(cell: CellView, base: CellView) -> Floats | None:
    pair = _option_distributions(cell, base)
    return None if pair is None else total_variation(*pair)


def _option_distributions(cell: CellView, base: CellView) -> _Pair | None:
    """Both distributions over the options, the checkpoint's first."""
    if LENGTH_NORMALISED in cell.context.settings + base.context.settings:
        return None
    return normalise_outcomes(_logprob_matrix(cell)), normalise_outcomes(_logprob_matrix(base))


def _answer_distributions(cell: CellView, base: CellView) -> _Pair | None:
    """Both distributions over the options and one outcome for every other answer, the checkpoint's first."""
    if LENGTH_NORMALISED in cell.context.settings + base.context.settings or not _has_exclusive_options(cell):
        return None
    sides = with_remainder(_logprob_matrix(cell)), with_remainder(_logprob_matrix(base))
    return None if sides[0] is None or sides[1] is None else (sides[0], sides[1])


def _logprob_matrix(cell: CellView) -> Floats:
    return logprob_matrix(list(cell.frame["option_logprobs"]))


def _has_exclusive_options(cell: CellView) -> bool:
    """Whether no reply can begin with two options: letters, options scored with an end, or none a prefix of another."""
    if '"answer_end": true' in cell.context.settings or cell.frame["kind"].eq(AnswerKind.letter).all():
        return True
    option_sets = {tuple(options) for options in cell.frame["options"]}
    return not any(
        longer.startswith(shorter)
        for options in option_sets
        for shorter_place, shorter in enumerate(options)
        for longer_place, longer in enumerate(options)
        if shorter_place != longer_place
    )


DRIFT: dict[str, Callable[[CellView, CellView], Floats | None]] = {
    "kl_from_base": _kl_from_base(_option_distributions),
    "kl_to_base": _kl_to_base(_option_distributions),
    "total_variation": _total_variation,
    "flips": _flips,
    "answer_kl_from_base": _kl_from_base(_answer_distributions),
    "answer_kl_to_base": _kl_to_base(_answer_distributions),
}
"""Rows of scores.csv that compare a checkpoint with its base; `from` is KL(base || checkpoint)."""
_SHARES = ("total_variation", "flips")
