"""The chance level of a mean over datasets: known only where each of them has one, since the mean is over all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Chance:
    """Accuracy of guessing."""

    value: float | None
    """None where a dataset of the mean has no chance level, as those of open answers have none."""
    n_known: int
    """Datasets that have one."""
    n_datasets: int

    @property
    def reason(self) -> str:
        """Why there is no value, where some of the datasets have one; else empty."""
        return f"known for {self.n_known} of {self.n_datasets}" if 0 < self.n_known < self.n_datasets else ""


def mean_chance(levels: Iterable[float | None], n_datasets: int) -> Chance:
    """The chance level of a mean.

    Args:
        levels: those of its datasets, as far as they are known.
        n_datasets: how many datasets the mean is over.
    """
    known = [level for level in levels if level is not None]
    value = sum(known) / len(known) if known and len(known) == n_datasets else None
    return Chance(value, len(known), n_datasets)
