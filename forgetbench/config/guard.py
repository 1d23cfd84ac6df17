"""A budget of forgetting that a run is held to while it trains."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from forgetbench.core.records import Precision


class Over(StrEnum):
    """What the budget is for."""

    quadrants = "quadrants"
    """Each quadrant by itself; a dataset in no quadrant by itself, too."""
    mean = "mean"
    """The mean of the quadrants."""


@dataclass
class GuardConfig:
    """A budget of forgetting: a run that is shown to lose more stops there (docs/guard.md)."""

    max_loss: float | None = None
    """Points of accuracy that a run may lose of its base's while it trains; null: it is not watched."""
    over: Over = Over.quadrants
    """What may lose so much: each of the quadrants, or their mean."""
    datasets: list[str] | None = None
    """Sets that are asked at every look; a sweep that names none takes its matrix's outside the target's quadrant."""
    items: int = 200
    """Items asked at a look, split evenly over the datasets."""
    every: int | None = None
    """Steps between looks, each of which keeps its checkpoint; null: a look at every checkpoint."""
    precision: Precision = Precision.fp32
    """Arithmetic of the looks, as `matrix.precision`."""
    batch_size: int = 64
    """Items in a forward pass of a look, as `matrix.batch_size`."""

    @property
    def is_on(self) -> bool:
        """Whether a budget was given."""
        return self.max_loss is not None
