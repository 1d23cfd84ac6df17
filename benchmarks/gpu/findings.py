"""What a part of the check finds, and what it is told to do."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

FAMILY = "llava"
"""The family whose tiny model is used where one is enough."""


@dataclass(frozen=True)
class Finding:
    """One result, printed as soon as it is there."""

    name: str
    value: str
    """The value as text with its unit; empty where nothing was measured."""
    holds: bool | None = None
    """Whether it is as expected; None where nothing was expected."""
    expected: str = ""
    ratio: float | None = None
    """A ratio for the last line of the check."""

    def line(self) -> str:
        """One line of JSON, as a part's process writes it."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Scope:
    """How large a part is to be."""

    tiny: bool
    """Tiny shapes in place of the real sizes, and few rounds."""
    scratch: Path
    """A folder for tiny checkpoints and runs."""
    families: Sequence[str] = ()
    """Of tiny models; none for all of them."""
    methods: Sequence[str] = ()
    """By the names of their configurations; none for all of them."""

    @property
    def device(self) -> str:
        """The GPU if there is one."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    def goal(self, least: float) -> float | None:
        """A ratio's goal; none with tiny shapes, where it means nothing."""
        return None if self.tiny else least


@contextmanager
def scratch_scope(tiny: bool, families: Sequence[str] = (), methods: Sequence[str] = ()) -> Iterator[Scope]:
    """A scope whose folder goes when it is left."""
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as scratch:
        yield Scope(tiny, Path(scratch), families, methods)


def text(name: str, value: str) -> Finding:
    """Something to know, with no expectation."""
    return Finding(name, value)


def left_out(reason: str) -> Finding:
    """Why a part, or some of it, was not run."""
    return Finding("left out", reason)


def at_most(name: str, value: float, most: float) -> Finding:
    """A difference and its bound; NaN is beyond any."""
    return Finding(name, f"{value:.1e}", value <= most, f"at most {most:.0e}")


def all_of(name: str, right: int, total: int) -> Finding:
    """How many of some items are right, where all must be."""
    return Finding(name, f"{right} of {total}", right == total, "all")


def is_true(name: str, value: bool) -> Finding:
    """Something that must be so."""
    return Finding(name, "yes" if value else "no", value, "yes")


def ratio(name: str, value: float, least: float | None = None, digits: int = 2) -> Finding:
    """A ratio, with its goal if it has one."""
    goal = f"at least {least}" if least is not None else ""
    return Finding(name, f"{value:.{digits}f}", None if least is None else value >= least, goal, value)
