"""What every table, page and figure says alike: names of quadrants, the view shown first, and units."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from forgetbench.core.records import Decoding, Metric

QUADRANT_NAMES = {
    "id_text-id_image": "ID text, ID image",
    "id_text-ood_image": "ID text, OOD image",
    "ood_text-id_image": "OOD text, ID image",
    "ood_text-ood_image": "OOD text, OOD image",
}
MERIT = {"mischoice": -1, "mischoice_of_wrong": -1, "letter_bias": -1, "generation_gap": 0, "number_words": -1}
"""Whether a higher value is better (1, as of everything that is not here), worse (-1) or neither (0)."""


def first_decoding(decodings: Iterable[object]) -> str:
    """The view that is shown first: `choice` if it is there, else the first in sorted order; empty without any."""
    names = sorted({str(decoding) for decoding in decodings})
    return Decoding.choice.value if Decoding.choice.value in names else next(iter(names), "")


def is_fraction(metric: str) -> bool:
    """Whether a measure is a share of 1, as all but CIDEr-D are."""
    return metric not in set(Metric) or Metric(metric).is_fraction


def units(metrics: Iterable[str], fraction_unit: str) -> str:
    """The unit of numbers: `fraction_unit` (such as "% right"), and whether some metrics have their own scale."""
    fractions = {is_fraction(metric) for metric in metrics} or {True}
    if True not in fractions:
        return "metrics on their own scale"
    return f"{fraction_unit} (other metrics on their own scale)" if False in fractions else fraction_unit


def number(value: object) -> float | None:
    """A cell of a table as a number; None where it is empty."""
    return None if pd.isna(value) else float(value)  # type: ignore[call-overload,arg-type]
