"""What a terminal's tables are made of: a change in words and colour, and texts folded to a width."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from forgetbench.core.confidence import ALPHA_TEXT
from forgetbench.tables.verdict import is_starred, verdict
from forgetbench.terminal.wording import MERIT, is_fraction, number

DASH = "-"
STAR = f"* Holm-adjusted p < {ALPHA_TEXT} (mischoice and the target's quadrant go by intervals)"
_BREAKS = (r"(?<=: )", r"(?<=\s)", r"(?<=--)", r"(?<=.[,@/])", r"(?<=[-_+])", r"(?<=[=.:])", r"(?<=.)")
"""Where a text may be folded, the best place first."""


@dataclass(frozen=True)
class Change:
    """One score at the base and at a later checkpoint, as one row of the plain summary has it."""

    base: float | None
    last: float | None
    delta: float | None
    ci_low: float | None
    ci_high: float | None
    p_holm: float | None
    metric: str

    @property
    def is_starred(self) -> bool:
        """Whether the change stands after adjustment for how many were tested."""
        return is_starred(self.p_holm)

    def shown(self, value: float | None) -> str:
        """A value as a percentage, or on its metric's own scale."""
        if value is None:
            return DASH
        return f"{100 * value:.1f}" if is_fraction(self.metric) else f"{value:.2f}"

    def path(self, *between: float | None) -> str:
        """Such as "41.7 -> 60.0", over the values between if there are any."""
        return " -> ".join(self.shown(value) for value in (self.base, *between, self.last))

    def words(self, half_width: bool) -> Text:
        """The delta, half of its interval if wanted, and its verdict."""
        if self.delta is None:
            return Text(DASH, "dim")
        text = f"{'+' * (self.delta >= 0)}{self.shown(self.delta)}"
        if self.ci_low is None or self.ci_high is None:
            return Text(text + "*" * self.is_starred, "dim")
        if half_width:
            text += f" +/- {self.shown((self.ci_high - self.ci_low) / 2)}"
        word = verdict(self.delta, self.ci_low, self.ci_high, self.p_holm)
        sign = {"lower": -1, "higher": 1}.get(word, 0)
        style = ("dim", "green", "red")[sign * MERIT.get(self.metric, 1)]
        return Text(f"{text} {word}{'*' * self.is_starred}", style)


def change(row: Mapping[Any, Any]) -> Change:
    """The change in one row of the plain summary."""
    return Change(
        base=number(row["base_value"]),
        last=number(row["value"]),
        delta=number(row["delta"]),
        ci_low=number(row["delta_ci_low"]),
        ci_high=number(row["delta_ci_high"]),
        p_holm=number(row["p_holm"]),
        metric=str(row["metric"]),
    )


def star_lines(changes: Iterable[Change]) -> list[Text]:
    """What the star means, where there is one."""
    return [Text(), Text(STAR, "dim")] if any(score_change.is_starred for score_change in changes) else []


def fold(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters that make up `text`, broken inside a word only where nothing else fits."""
    return [line.rstrip() for line in _fold(text, max(1, width), _BREAKS)]


def _fold(text: str, width: int, breaks: tuple[str, ...]) -> list[str]:
    if len(text) <= width:
        return [text]
    lines: list[str] = []
    for piece in re.split(breaks[0], text):
        if lines and len(lines[-1]) + len(piece.rstrip()) <= width:
            lines[-1] += piece
        elif len(piece.rstrip()) <= width:
            lines.append(piece)
        else:
            lines.extend(_fold(piece, width, breaks[1:]))
    return [line for line in lines if line]


@dataclass(frozen=True)
class Fitted:
    """A renderable that is drawn for the width of the terminal."""

    draw: Callable[[int], RenderableType]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.draw(options.max_width)
