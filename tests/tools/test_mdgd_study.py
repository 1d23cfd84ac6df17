"""The study of MDGD: what a setting is compared with, and that every listed command composes."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from forgetbench.cli import app
from tools.mdgd_result import Answers, at_equal_target, compared, kept_more, learnt_more
from tools.mdgd_study import LONG, LOWER, PLAIN, SEEDS, SETTINGS, TRAININGS, commands

QUADRANTS = {"id_text-ood_image": ["digits"], "ood_text-id_image": ["facts", "shades"]}
N = 20


def answers(label: str, target: float, losses: tuple[int, int, int], seed: int = 0) -> Answers:
    """A checkpoint that lost so many of 20 items of each dataset."""
    items = {
        name: -(np.arange(N) < lost).astype(float)
        for name, lost in zip(("digits", "facts", "shades"), losses, strict=True)
    }
    others = (items["digits"].mean() + (items["facts"].mean() + items["shades"].mean()) / 2) / 2
    clusters = {name: [f"{name}{i}" for i in range(N)] for name in items}
    learnt = (np.arange(N) < round(target * N)).astype(float)
    labels = [f"naming{i}" for i in range(N)]
    return Answers(
        *(label, 8e-4, seed, 120, True, target, float(others), 0.0, 0.0, 0.0),
        *(learnt, labels, items, clusters, QUADRANTS),
    )


def test_a_setting_is_compared_with_the_plain_checkpoint_that_learnt_as_much_and_kept_most() -> None:
    method = answers("conflict, all tensors", 0.60, (4, 0, 0))
    plain = [
        answers(PLAIN, 0.59, (0, 0, 0)),  # kept more, but learnt less
        answers(PLAIN, 0.60, (8, 0, 0)),
        answers(PLAIN, 0.70, (6, 0, 0)),
        answers(PLAIN, 0.70, (0, 0, 0), seed=1),
    ]
    assert at_equal_target(method, plain) is plain[2]
    assert at_equal_target(method, plain[:1]) is None
    more = kept_more([(method, plain[2])])
    assert more.value == pytest.approx(2 / N / 2)  # two items of the one dataset of one of two quadrants
    assert more.stderr
    both = kept_more([(method, plain[2]), (answers("conflict, all tensors", 0.6, (4, 2, 0), seed=1), plain[3])])
    assert both.value == pytest.approx((2 / N / 2 + (-4 / N - 2 / N / 2) / 2) / 2)
    assert both.n_seeds == 2


def test_a_setting_is_held_against_plain_at_its_rate_and_at_equal_target_only_if_every_seed_can_be() -> None:
    plain = [answers(PLAIN, 0.60, (8, 0, 0)), answers(PLAIN, 0.50, (6, 0, 0), seed=1)]
    method = [answers("layer 1", 0.60, (4, 0, 0)), answers("layer 1", 0.55, (6, 0, 0), seed=1)]
    comparisons = compared([*plain, *method])
    assert list(comparisons) == [(PLAIN, 8e-4), ("layer 1", 8e-4)]
    assert not comparisons[PLAIN, 8e-4].at_same_rate
    assert not comparisons["layer 1", 8e-4].at_equal_target  # the second seed's plain learnt less
    same = comparisons["layer 1", 8e-4].at_same_rate
    assert [(point.seed, other.seed) for point, other in same] == [(0, 0), (1, 1)]
    assert kept_more(same).value == pytest.approx(4 / N / 2 / 2)
    assert learnt_more(same).value == pytest.approx(0.05 / 2)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 7, len(SETTINGS) + 3])
def test_a_listed_run_composes(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert not app([*shlex.split(commands()[number])[1:], "--cfg"], standalone_mode=False)
    assert "precision: fp32" in capsys.readouterr().out


def test_every_setting_is_listed_for_every_training_and_seed_but_the_long_one() -> None:
    names = [command.rpartition("name=")[2] for command in commands()]
    each = len(TRAININGS) + (len(TRAININGS) - 1) * len(SETTINGS) + len(LONG) + len(LOWER)
    assert len(set(names)) == len(names) == len(SEEDS) * each
