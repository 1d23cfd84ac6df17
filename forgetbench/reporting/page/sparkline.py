"""A sparkline's geometry: the scores of a history over the steps, in an SVG of the given size.

All fractions have the scale 0 to 100 %, so that adjacent lines can be compared; other metrics end at their maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

from forgetbench.reporting.page.score_history import ScoreHistory, value_text
from forgetbench.terminal.wording import is_fraction

_MARGIN = 3


@dataclass(frozen=True)
class Sparkline:
    """The shapes that the template draws."""

    width: int
    height: int
    line: str
    """`points` of an SVG polyline; the first is the base."""
    base: tuple[str, str]
    last: tuple[str, str]
    chance: str | None
    """Height of the dashed line of chance."""
    label: str
    """Description in words."""


def sparkline(history: ScoreHistory, width: int, height: int, chance: float | None = None) -> Sparkline | None:
    """The line of a history; None for fewer than two points."""
    if len(history.points) < 2:
        return None
    fraction = is_fraction(history.metric)
    top = 1.0 if fraction else max(1e-9, *(value for _, value in history.points))
    steps = [step for step, _ in history.points]
    span = max(steps[-1] - steps[0], 1)

    def x(step: int) -> str:
        return f"{_MARGIN + (width - 2 * _MARGIN) * (step - steps[0]) / span:.4g}"

    def y(value: float) -> str:
        return f"{height - _MARGIN - (height - 2 * _MARGIN) * min(max(value, 0), top) / top:.4g}"

    coordinates = [(x(step), y(value)) for step, value in history.points]
    return Sparkline(
        width,
        height,
        " ".join(f"{a},{b}" for a, b in coordinates),
        coordinates[0],
        coordinates[-1],
        y(chance) if chance is not None and fraction else None,
        _label(history),
    )


def _label(history: ScoreHistory) -> str:
    values = [value for _, value in history.points]
    first, last, low, high = (value_text(v, history.metric) for v in (values[0], values[-1], min(values), max(values)))
    unit = history.unit
    label = f"{history.metric} from {first}{unit} at the base to {last}{unit} at step {history.points[-1][0]}"
    if len(values) == 2:
        return label
    return f"{label}, between {low} and {high}{unit} over {len(values)} checkpoints"
