"""Points with two values, higher is better in both: ranks, hypervolume, and which part of them goes on.

The rule of successive halving is ours, of published pieces: non-dominated sorting (Deb et al. 2002, NSGA-II) to halve
by, as in multi-objective ASHA (Schmucker et al. 2021, arXiv:2106.12639), and inside the rank that does not fit, the
point that adds least hypervolume is dropped first (Beume, Naujoks and Emmerich 2007, SMS-EMOA).
"""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[float, float]


def dominates(one: Pair, other: Pair) -> bool:
    """Whether a point is at least as good in both values, and better in one."""
    return one[0] >= other[0] and one[1] >= other[1] and one != other


def pareto_front(points: Sequence[Pair]) -> list[bool]:
    """Which points no other one dominates; equal points both stay."""
    return [not any(dominates(other, point) for other in points) for point in points]


def ranks(points: Sequence[Pair]) -> list[int]:
    """0 for the front, 1 for the front of what is left without it, and so on."""
    found = [0] * len(points)
    left, rank = list(range(len(points))), 0
    while left:
        front = pareto_front([points[number] for number in left])
        for number in left:
            found[number] = rank
        left = [number for number, is_front in zip(left, front, strict=True) if not is_front]
        rank += 1
    return found


def hypervolume(points: Sequence[Pair], reference: Pair) -> float:
    """The area that points dominate above a reference; one that is not above it in both values adds none."""
    area, height = 0.0, reference[1]
    for x, y in sorted(points, reverse=True):
        if x > reference[0] and y > height:
            area += (x - reference[0]) * (y - height)
            height = y
    return area


def better_part(points: Sequence[Pair], count: int, reference: Pair) -> list[int]:
    """Numbers of the points that go on, ascending.

    Whole ranks, from the front on, as long as they fit. From the rank that does not, the point goes whose loss costs
    the least hypervolume, one after the other; of equal points the later one.

    Args:
        points: with two values each.
        count: how many go on.
        reference: of the hypervolume.
    """
    rank_of, kept = ranks(points), list[int]()
    for rank in range(max(rank_of, default=-1) + 1):
        own = [number for number, its in enumerate(rank_of) if its == rank]
        while len(kept) + len(own) > count:
            own.remove(_least(own, points, reference))
        kept += own
    return sorted(kept)


def _least(numbers: Sequence[int], points: Sequence[Pair], reference: Pair) -> int:
    """The point that the others need least."""

    def without(number: int) -> float:
        return hypervolume([points[other] for other in numbers if other != number], reference)

    return max(reversed(numbers), key=without)
