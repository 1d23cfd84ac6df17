"""Which steps are kept: pure functions of the settings and the lengths of the stages."""

from __future__ import annotations

import pytest

from forgetbench.config import CheckpointConfig
from forgetbench.training.schedule import checkpoint_steps


@pytest.mark.parametrize(
    ("count", "total", "expected"),
    [
        (4, 1, [1]),
        (4, 2, [1, 2]),
        (4, 3, [1, 2, 3]),
        (4, 4, [1, 2, 3, 4]),
        (4, 240, [30, 60, 120, 240]),
        (1, 240, [240]),
    ],
)
def test_log_spaced_steps_double_up_to_the_last_and_a_short_run_keeps_what_fits(
    count: int, total: int, expected: list[int]
) -> None:
    assert checkpoint_steps(CheckpointConfig(log_spaced=count), [total]) == expected


def test_short_stages_keep_their_ends_and_what_fits_of_the_whole_run() -> None:
    assert checkpoint_steps(CheckpointConfig(log_spaced=4), [1, 1, 1]) == [1, 2, 3]
    assert checkpoint_steps(CheckpointConfig(log_spaced=2), [5, 3]) == [4, 5, 8]


def test_every_and_a_list_keep_the_last_step_too() -> None:
    assert checkpoint_steps(CheckpointConfig(every=3), [8]) == [3, 6, 8]
    assert checkpoint_steps(CheckpointConfig(steps=[2]), [8]) == [2, 8]
