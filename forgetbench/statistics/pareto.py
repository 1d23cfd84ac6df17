"""Points with two values, higher is better in both: ranks, hypervolume, and selection.

The selection rule for successive halving combines published parts: non-dominated sorting (Deb et al. 2002, NSGA-II) to
halve by, as in multi-objective ASHA (Schmucker et al. 2021, arXiv:2106.12639), and inside the rank that does not fit,
the point that adds least hypervolume is dropped first (Beume, Naujoks and Emmerich 2007, SMS-EMOA).
"""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[float, float]


def dominates(point: Pair, other: Pair) -> bool:
    """Whether a point is at least as good in both values, and better in one."""
    return point[0] >= other[0] and point[1] >= other[1] and point != other


def pareto_front(points: Sequence[Pair]) -> list[bool]:
    """Which points no other point dominates; equal points both stay."""
    return [not any(dominates(other, point) for other in points) for point in points]


def nondominated_ranks(points: Sequence[Pair]) -> list[int]:
    """0 for the front, 1 for the front of what is left without it, and so on."""
    point_ranks = [0] * len(points)
    remaining, rank = list(range(len(points))), 0
    while remaining:
        front = pareto_front([points[number] for number in remaining])
        for number in remaining:
            point_ranks[number] = rank
        remaining = [number for number, is_front in zip(remaining, front, strict=True) if not is_front]
        rank += 1
    return point_ranks


def hypervolume(points: Sequence[Pair], reference: Pair) -> float:
    """The area that points dominate above a reference; a point not above it in both values adds none."""
    area, height = 0.0, reference[1]
    for x, y in sorted(points, reverse=True):
        if x > reference[0] and y > height:
            area += (x - reference[0]) * (y - height)
            height = y
    return area


def select_survivors(points: Sequence[Pair], count: int, reference: Pair) -> list[int]:
    """Indices of the points to keep, ascending.

    Ranks are kept whole, from the front on, while they fit. From the first rank that does not fit, the point that adds
    least hypervolume is dropped, one at a time; of equal points the later.

    Args:
        points: with two values each.
        count: how many to keep.
        reference: the hypervolume's reference point.
    """
    rank_of, survivors = nondominated_ranks(points), list[int]()
    for rank in range(max(rank_of, default=-1) + 1):
        members = [number for number, point_rank in enumerate(rank_of) if point_rank == rank]
        while len(survivors) + len(members) > count:
            members.remove(_least_contributor(members, points, reference))
        survivors += members
    return sorted(survivors)


def _least_contributor(numbers: Sequence[int], points: Sequence[Pair], reference: Pair) -> int:
    """The point that adds least hypervolume to the others."""

    def without(number: int) -> float:
        return hypervolume([points[other] for other in numbers if other != number], reference)

    return max(reversed(numbers), key=without)
