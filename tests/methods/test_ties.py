"""TIES: trim, elect, average, against cases worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from forgetbench.methods.operation import Trained
from forgetbench.methods.ties import Scope, Ties, agreeing_mean, magnitude_threshold

Change = dict[str, Sequence[float]]
PASSES: Any = None


def trained(*changes: Change, base: float = 0.0) -> Trained:
    """Runs from a base of equal weights; the first is the one that is merged with the others."""
    w0 = {name: torch.full((len(d),), base) for change in changes for name, d in change.items()}
    runs = [{name: w0[name] + torch.tensor(d) for name, d in change.items()} for change in changes]
    base_of_run = {name: w0[name] for name in runs[0]}
    others = {name: w0[name] for run in runs[1:] for name in run}
    return Trained(None, base_of_run, runs[0], runs[1:], others, PASSES)


def merged(models: Trained, **settings: Any) -> dict[str, Tensor]:
    ((setting, tensors),) = Ties(**settings).variants(models)
    assert setting == ""
    return dict(tensors)


def test_three_runs_worked_out_by_hand() -> None:
    first = {"w": [8.0, 1.0, -6.0, 2.0, 0.5]}
    second = {"w": [-3.0, 9.0, -4.0, -1.0, 0.25]}
    third = {"w": [-2.0, -1.0, 7.0, 4.0, 0.125]}
    # Trimmed to the two largest of five:   [ 8, 0, -6, 0, 0]
    #                                       [ 0, 9, -4, 0, 0]
    #                                       [ 0, 0,  7, 4, 0]
    # Sums [8, 9, -3, 4, 0]; of the third entry -6 and -4 agree with the sum.
    tensors = merged(trained(first, second, third, base=10.0), density=0.4, scale=0.5)
    assert tensors["w"].tolist() == [10 + 4, 10 + 4.5, 10 - 2.5, 10 + 2, 10]


def test_alone_a_run_keeps_its_largest_changes() -> None:
    tensors = merged(trained({"w": [0.5, -3.0, 2.0, -1.0]}, base=1.0), density=0.5)
    assert tensors["w"].tolist() == [1.0, -2.0, 3.0, 1.0]


def test_the_largest_are_those_of_the_run_or_of_each_tensor() -> None:
    change = {"large": [9.0, 8.0], "small": [0.2, 0.1]}
    assert merged(trained(change), density=0.5)["small"].tolist() == [0.0, 0.0]
    by_tensor = merged(trained(change), density=0.5, scope=Scope.tensor)
    assert by_tensor["small"].tolist() == pytest.approx([0.2, 0.0])
    assert by_tensor["large"].tolist() == [9.0, 0.0]


def test_a_tensor_that_one_run_left_alone_takes_the_other_runs_change() -> None:
    tensors = merged(trained({"mine": [4.0, 1.0]}, {"theirs": [0.0, -2.0]}, base=1.0), density=0.5)
    assert {name: w.tolist() for name, w in tensors.items()} == {"mine": [5.0, 1.0], "theirs": [1.0, -1.0]}


def test_changes_that_cancel_elect_nothing_and_zeros_are_not_averaged() -> None:
    changes = [torch.tensor([2.0, 3.0, 0.0]), torch.tensor([-2.0, 0.0, 0.0])]
    assert agreeing_mean(changes).tolist() == [0.0, 3.0, 0.0]


def test_the_threshold_is_that_of_all_tensors_sorted_together() -> None:
    generator = torch.Generator().manual_seed(0)
    changes = [torch.randn(shape, generator=generator) for shape in ((30, 20), (5,), (1, 77), (200,))]
    together = torch.cat([change.flatten().abs() for change in changes]).sort(descending=True).values
    for density in (0.001, 0.2, 0.9, 1.0):
        kept = max(1, round(density * len(together)))
        assert magnitude_threshold([lambda tensor=tensor: tensor for tensor in changes], density) == float(
            together[kept - 1]
        )


@pytest.mark.parametrize(
    ("field", "value"), [("density", 0.0), ("density", 1.5), ("scale", 0.0), ("merge", ["outputs/a", "outputs/a"])]
)
def test_settings_without_meaning_are_refused(field: str, value: object) -> None:
    assert list(Ties(**{field: value}).problems()) == [field]
    assert not Ties(merge=["outputs/a", "outputs/b"]).problems()
