"""Methods at their own best: what is chosen, and how a choice is compared with plain fine-tuning's."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
import pytest

from forgetbench.cli import app
from forgetbench.commands.search.objectives import Objectives, Value
from forgetbench.config import Retention, SweepConfig
from tools.methods_search import METHODS, OPERATIONS, SEEDS, balance, commands, kept_at_floor
from tools.methods_search_result import against_plain
from tools.search_result import Comparison, resampled
from tools.searched import Items, Measured, ObjectiveSets

QUADRANTS = {"id_text-ood_image": ["digits"], "ood_text-id_image": ["facts", "shades"]}


def point(target: float, kept: float) -> Objectives:
    return Objectives(Value(target), 0.5, Value(kept), {})


def share_of(share: float, n: int) -> Any:
    return (np.arange(n) < round(share * n)).astype(float)


def measured(target: float, digits: float, facts: float, shades: float, n: int = 40) -> Measured:
    """Shares of right answers, each item a cluster of its own; the base knows half of the target and all else."""
    shares = {"naming": target, "digits": digits, "facts": facts, "shades": shades}
    before = {name: share_of(0.5 if name == "naming" else 1.0, n) for name in shares}
    items = {
        name: Items(share_of(share, n), before[name], [f"{name}{i}" for i in range(n)])
        for name, share in shares.items()
    }
    kept = ((digits - 1) + (facts + shades - 2) / 2) / 2
    objectives = Objectives(Value(target), 0.5, Value(kept), {})
    return Measured("", objectives, objectives, items)


def test_a_point_is_chosen_by_what_it_learnt_and_kept() -> None:
    points = [point(0.75, -0.10), point(0.72, -0.02), point(0.69, 0.0)]
    assert max(points, key=balance) is points[1]
    assert max(points, key=kept_at_floor) is points[1]
    assert max([points[0], points[2]], key=kept_at_floor) is points[0]
    assert max([point(0.6, 0.0), point(0.65, -0.2)], key=kept_at_floor).target.value == 0.65


def test_a_method_less_plain_weighs_quadrants_alike_and_the_datasets_of_each() -> None:
    plain = [measured(0.5, 0.5, 0.5, 0.5)] * 3
    method = [measured(0.6, 0.7, 0.5, 0.6), measured(0.7, 0.7, 0.5, 0.6), measured(0.8, 0.7, 0.5, 0.6)]
    less = against_plain(method, plain, QUADRANTS)
    assert less["target"].value == pytest.approx(0.2)
    assert less["target"].seed_sd == pytest.approx(0.1)
    assert less["others"].value == pytest.approx((0.2 + (0.0 + 0.1) / 2) / 2)
    assert less["others"].seed_sd == pytest.approx(0.0)
    assert less["sum"].value == pytest.approx(0.2 + 0.125)
    assert less["sum"].stderr > less["others"].stderr > 0  # type: ignore[operator]


def test_a_method_that_is_plain_differs_by_nothing() -> None:
    plain = [measured(0.5, 0.5, 0.5, 0.5)] * 3
    assert {name: estimate.value for name, estimate in against_plain(plain, plain, QUADRANTS).items()} == {
        "target": 0.0,
        "others": 0.0,
        "sum": 0.0,
    }


def test_hypervolumes_of_resampled_items_lie_around_the_one_that_was_measured() -> None:
    others = {name: name for names in QUADRANTS.values() for name in names}
    comparison = Comparison(
        SweepConfig(), ObjectiveSets({"naming": "naming"}, others, {}, Retention.mean), QUADRANTS, 0.3
    )
    fronts = {"better": [measured(1.0, 0.9, 0.9, 0.9, n=400)], "worse": [measured(0.75, 0.9, 0.9, 0.9, n=400)]}
    draws = resampled(fronts, comparison, draws=400)
    # Half of the target gained, and 10 of 30 points lost: 50 x 20 squared points, and half of that.
    assert draws["better"].mean() == pytest.approx(1000, rel=0.05)
    assert draws["worse"].mean() == pytest.approx(500, rel=0.08)
    assert (draws["better"] > draws["worse"]).all()


@pytest.mark.parametrize("command", commands()[: len(METHODS)], ids=list(METHODS))
def test_a_listed_search_composes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert not app([*shlex.split(command)[1:], "--cfg"], standalone_mode=False)
    assert "search:" in capsys.readouterr().out


@pytest.mark.parametrize("label", OPERATIONS)
def test_strengths_of_an_operation_are_spread_over_its_range_and_valid(label: str) -> None:
    operation = OPERATIONS[label]
    strengths = operation.strengths(10, seed=1)
    assert strengths == operation.strengths(10, seed=1) != operation.strengths(10, seed=2)
    places = np.array(sorted(strengths))
    ends = np.array([operation.low, operation.high])
    if operation.is_log:
        places, ends = np.log(places), np.log(ends)
    np.testing.assert_allclose(places, ends[0] + (np.arange(10) + 0.5) / 10 * (ends[1] - ends[0]), atol=0.01)
    for strength in strengths:
        assert not operation.made(strength).problems()
        assert len(operation.made(strength).settings()) == 1


def test_every_method_gets_a_search_per_seed() -> None:
    names = [command.rpartition("name=")[2] for command in commands()]
    assert len(set(names)) == len(names) == len(METHODS) * len(SEEDS)
