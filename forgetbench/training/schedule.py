"""Learning-rate factor and checkpoint steps: pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from forgetbench.config import CheckpointConfig, FinetuneConfig, GuardConfig, Schedule


def lr_factor(step: int, total: int, warmup: float, schedule: Schedule) -> float:
    """Factor on the peak learning rate for one optimiser step.

    Args:
        step: 1 .. total.
        total: steps of the stage.
        warmup: share of `total` spent rising linearly.
        schedule: shape of the decay to 0 after it.
    """
    rising = round(warmup * total)
    if step <= rising:
        return step / rising
    progress = (step - 1 - rising) / max(1, total - rising)
    if schedule is Schedule.cosine:
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress if schedule is Schedule.linear else 1.0


def checkpoint_steps(config: CheckpointConfig, stages: Sequence[int]) -> list[int]:
    """The steps to keep, ascending; the last step of every stage is always among them.

    Args:
        config: every n, a list, or a number of log-spaced steps.
        stages: steps of each stage.
    """
    total = sum(stages)
    steps = {*accumulate(stages), *config.steps}
    if config.every:
        steps |= set(range(config.every, total + 1, config.every))
    if config.log_spaced:
        steps |= set(log_spaced(config.log_spaced, total))
    return sorted(step for step in steps if 0 < step <= total)


def first_steps(total: int, share: float) -> int:
    """A share of `total` steps as a number of steps, at least 1."""
    return min(total, max(1, round(share * total)))


def guard_steps(guard: GuardConfig, checkpoints: Sequence[int]) -> list[int]:
    """The steps after which the guard looks, ascending; the last step of training is always among them.

    Args:
        guard: every n steps, or at every checkpoint.
        checkpoints: steps that the run keeps without a guard.
    """
    if not guard.is_on or not checkpoints:
        return []
    total = checkpoints[-1]
    return sorted({*range(guard.every, total, guard.every), total}) if guard.every else list(checkpoints)


def kept_steps(config: FinetuneConfig, stages: Sequence[int]) -> list[int]:
    """The steps that a run keeps, ascending: its checkpoints, and those at which its guard looks.

    Args:
        config: of the run.
        stages: steps of each stage.
    """
    checkpoints = checkpoint_steps(config.recipe.checkpoints, stages)
    return sorted({*checkpoints, *guard_steps(config.guard, checkpoints)})


def log_spaced(count: int, total: int) -> list[int]:
    """Up to `count` distinct steps, evenly spaced in log(step), from total / 2^(count-1) or 1 to total."""
    first = max(1.0, total / 2 ** (count - 1))
    ratio = (total / first) ** (1 / max(1, count - 1))
    return sorted({min(total, round(first * ratio**i)) for i in range(count)} | {total})
