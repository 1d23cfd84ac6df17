"""Ranks, areas and the part of some points that goes on, by hand."""

from __future__ import annotations

import pytest

from forgetbench.statistics.pareto import hypervolume, nondominated_ranks, pareto_front, select_survivors

POINTS = [(1.0, 5.0), (3.0, 3.0), (5.0, 1.0), (2.0, 2.0), (1.0, 1.0), (3.0, 3.0)]
"""A front of four, two of them equal; behind it one point, and behind that another."""


def test_ranks_peel_front_after_front() -> None:
    assert pareto_front(POINTS) == [True, True, True, False, False, True]
    assert nondominated_ranks(POINTS) == [0, 0, 0, 1, 2, 0]


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([], 0.0),
        ([(2.0, 3.0)], 6.0),
        ([(1.0, 5.0), (3.0, 3.0), (5.0, 1.0)], 5 + 2 * 3 + 2 * 1),
        (POINTS, 13.0),
        ([(0.0, 9.0), (9.0, -1.0)], 0.0),
    ],
    ids=["no point", "a rectangle", "stairs", "what is dominated adds nothing", "beyond the reference nothing counts"],
)
def test_hypervolume_is_the_area_that_points_dominate(points: list[tuple[float, float]], area: float) -> None:
    assert hypervolume(points, (0.0, 0.0)) == area


@pytest.mark.parametrize(
    ("count", "kept"),
    [
        # Without the first point 4 of the area 13 are gone, without the third 2, without either of two equal ones none.
        (6, [0, 1, 2, 3, 4, 5]),
        (5, [0, 1, 2, 3, 5]),
        (3, [0, 1, 2]),
        (2, [0, 1]),
        (1, [1]),
    ],
)
def test_whole_ranks_go_on_and_of_the_last_one_what_adds_most_area(count: int, kept: list[int]) -> None:
    assert select_survivors(POINTS, count, (0.0, 0.0)) == kept


def test_a_point_that_learns_nothing_goes_first_though_no_other_one_keeps_more() -> None:
    points = [(0.30, 0.0), (0.40, -0.01), (0.55, -0.05)]
    assert select_survivors(points, 2, reference=(0.35, -0.3)) == [1, 2]
