"""What one check of the machine found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How well something works, from best to worst."""

    ok = "ok"
    warning = "warning"
    """Something that some runs need does not work, or may not."""
    fails = "fails"
    """Something that every run needs does not work."""


@dataclass(frozen=True)
class Finding:
    """One line."""

    check: str
    state: State
    message: str
    fix: str = ""
    """What to do; empty where nothing is to be done."""
