"""Compose a step's micro-batches by length: padding is work that trains nothing.

The items of a step stay, and with them the mixing ratio and the loss, up to the order of sums. Who gets what follows
from the step's items and the number of processes alone, so that resuming changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def by_length(items: Sequence[T], lengths: Sequence[int], micro_batches: int) -> list[T]:
    """A step's items so that consecutive ones are of similar length, the longest micro-batch first.

    A step that does not fit into memory fails on its first pass. Within a micro-batch the shortest come first.

    Args:
        items: of one step.
        lengths: in tokens; an estimate costs padding, nothing else.
        micro_batches: how many parts of equal size the result is cut into.
    """
    order = sorted(range(len(items)), key=lambda place: (lengths[place], place))
    size = len(items) // micro_batches
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return [items[place] for part in reversed(parts) for place in part]
