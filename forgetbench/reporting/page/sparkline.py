"""A sparkline's geometry: the scores of a course over the steps, in an SVG of the given size.

All fractions share one scale, 0 to 100 %, so that two lines beside each other compare; others end at their highest.
"""

from __future__ import annotations

from dataclasses import dataclass

from forgetbench.reporting.page.course import Course, value_text
from forgetbench.terminal.wording import is_fraction

_MARGIN = 3


@dataclass(frozen=True)
class Sparkline:
    """What the template draws."""

    width: int
    height: int
    line: str
    """`points` of an SVG polyline; the first is the base."""
    base: tuple[str, str]
    last: tuple[str, str]
    chance: str | None
    """Height of the dashed line of chance."""
    label: str
    """What it shows, in words."""


def sparkline(course: Course, width: int, height: int, chance: float | None = None) -> Sparkline | None:
    """The line of a course; None for fewer than two points."""
    if len(course.points) < 2:
        return None
    fraction = is_fraction(course.metric)
    top = 1.0 if fraction else max(1e-9, *(value for _, value in course.points))
    steps = [step for step, _ in course.points]
    span = max(steps[-1] - steps[0], 1)

    def x(step: int) -> str:
        return f"{_MARGIN + (width - 2 * _MARGIN) * (step - steps[0]) / span:.4g}"

    def y(value: float) -> str:
        return f"{height - _MARGIN - (height - 2 * _MARGIN) * min(max(value, 0), top) / top:.4g}"

    at = [(x(step), y(value)) for step, value in course.points]
    return Sparkline(
        width,
        height,
        " ".join(f"{a},{b}" for a, b in at),
        at[0],
        at[-1],
        y(chance) if chance is not None and fraction else None,
        _label(course),
    )


def _label(course: Course) -> str:
    values = [value for _, value in course.points]
    first, last, low, high = (value_text(v, course.metric) for v in (values[0], values[-1], min(values), max(values)))
    unit = course.unit
    label = f"{course.metric} from {first}{unit} at the base to {last}{unit} at step {course.points[-1][0]}"
    if len(values) == 2:
        return label
    return f"{label}, between {low} and {high}{unit} over {len(values)} checkpoints"
