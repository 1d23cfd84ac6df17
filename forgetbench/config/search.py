"""`forgetbench sweep sweep=search`: what is searched, by which two numbers, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Retention(StrEnum):
    """The second number of a point: how the off-target quadrants changed from the base."""

    mean = "mean"
    """The mean of the quadrants."""
    worst = "worst"
    """The quadrant that lost most."""


@dataclass
class SearchConfig:
    """A search for the recipes that learn most for what they forget; a space makes a sweep a search."""

    space: dict[str, Any] = field(default_factory=dict)
    """Key -> {log: [low, high]}, {uniform: [low, high]}, {integers: [low, high]} or {choice: [...]}; null: no longer.
    A choice that brings keys of its own is {choice: {plain: {}, ewc: {method.strength: {log: [10, 10000]}}}}."""
    steps: int | None = None
    """Budget: optimiser steps of all points together, those of stopped points too."""
    hours: float | None = None
    """Budget: hours of this command; what is under way when they are over is finished."""
    generation: int = 8
    """Points that are chosen together; how many run at a time never changes which these are."""
    rungs: list[float] = field(default_factory=lambda: [0.25, 0.5])
    """Shares of a point's steps after which it is scored, and goes on or stops; empty: every point is trained whole."""
    eta: float = 2.0
    """Of the points of a generation, one in so many goes on at each rung."""
    retention: Retention = Retention.mean
    """What the second objective is: the mean change of the off-target quadrants, or that of the worst."""
    validation: dict[str, str] = field(default_factory=dict)
    """Set of the matrix -> the set whose items stand for it while searching. Of the others it is items which
    `matrix.limit` leaves out."""
    items: int = 400
    """Validation items of each set, at most."""
    reference_loss: float = 0.3
    """A point that loses this much in `retention` is worth nothing: the corner that hypervolumes are measured from."""
    seed: int = 0
    """Of what is drawn while searching; `seed` is that of the trainings."""
