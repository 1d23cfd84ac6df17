"""A tracker that is not installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

from forgetbench.compose.checks.problem import Problem
from forgetbench.config import Tracker


def tracker_problems(tracker: Tracker, find: Callable[[str], object] = find_spec) -> Iterator[Problem]:
    """The tracker that was asked for cannot be imported."""
    if tracker is not Tracker.none and find(tracker.value) is None:
        yield Problem("tracker", f"{tracker} is not installed: pip install 'forgetbench[{tracker}]'.")
