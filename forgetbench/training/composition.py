"""Compose a step's micro-batches by length: padding is work that trains nothing.

The items of a step stay the same, and with them the mixing ratio and, up to the order of sums, the loss. The order
depends only on the items of the step and on the number of processes, so that resuming changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def order_by_length(items: Sequence[T], lengths: Sequence[int], micro_batches: int) -> list[T]:
    """Order the items of a step so that neighbours have similar lengths, the longest micro-batch first.

    So a step that does not fit into memory fails on its first pass. Within a micro-batch the shortest item comes first.

    Args:
        items: of one step.
        lengths: in tokens; a wrong estimate only costs padding.
        micro_batches: how many parts of equal size the result is cut into.
    """
    order = sorted(range(len(items)), key=lambda place: (lengths[place], place))
    size = len(items) // micro_batches
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return [items[place] for part in reversed(parts) for place in part]
