"""What a GPU does while some code runs: how long it idles, and which kernels take its time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.loops import synchronise

Interval = tuple[float, float]


@dataclass(frozen=True)
class Activity:
    """GPU activity in a stretch of time."""

    seconds: float
    busy_s: float
    """Seconds in which at least one kernel or copy ran."""
    kernels: Sequence[tuple[str, float]]
    """The dearest, with their seconds."""

    @property
    def idle_share(self) -> float:
        """Of the time."""
        return max(0.0, 1 - self.busy_s / self.seconds)


def union(intervals: Sequence[Interval]) -> float:
    """Length of what the intervals cover together; they may overlap."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def profile_activity(work: Callable[[], object], top: int = 8) -> Activity:
    """Run some work under PyTorch's profiler, for the GPU only; it makes work a little slower."""
    synchronise()
    with profile(
        activities=[ProfilerActivity.CUDA] if torch.cuda.is_available() else [ProfilerActivity.CPU]
    ) as profiler:
        started = time.perf_counter()
        work()
        synchronise()
        seconds = time.perf_counter() - started
    events = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
    spent: Counter[str] = Counter()
    for event in events:
        spent[event.name] += (event.time_range.end - event.time_range.start) / 1e6
    busy = union([(event.time_range.start / 1e6, event.time_range.end / 1e6) for event in events])
    return Activity(seconds, busy, spent.most_common(top))
