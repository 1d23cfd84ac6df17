"""Successive halving by checkpoints: where points are looked at, how many go on, and what that costs at most.

A generation's points train to the first rung, the better part of them to the next, and so on to the end of their own
schedules (Jamieson and Talwalkar 2016, arXiv:1502.07943): a rung is a beginning of the whole training, not a shorter
one. All points of a generation are looked at together, so that nothing depends on which was ready first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from forgetbench.training.schedule import first_steps


@dataclass(frozen=True)
class Halving:
    """How a generation is thinned out."""

    rungs: Sequence[float]
    """Shares of a point's steps, ascending."""
    eta: float

    @property
    def shares(self) -> list[float]:
        """The rungs, and the end."""
        return [*self.rungs, 1.0]

    def n_survivors(self, count: int) -> int:
        """How many of `count` points go on: at least one."""
        return math.ceil(count / self.eta)

    def max_steps(self, totals: Sequence[int]) -> int:
        """The most steps that a generation takes: as if the longest of its points went on.

        Args:
            totals: steps of each point's whole training.
        """
        spent, count, previous_stops = 0, len(totals), [0] * len(totals)
        for share in self.shares:
            stops = [first_steps(total, share) for total in totals]
            steps = [stop - previous for stop, previous in zip(stops, previous_stops, strict=True)]
            spent += sum(sorted(steps, reverse=True)[:count])
            previous_stops, count = stops, self.n_survivors(count)
        return spent
