"""Methods that act during training take steps on every family, whichever parts train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetbench.models.parts import part_of
from tests.support.families import FAMILIES, MARKED
from tests.support.methods import ADAPTERS, DURING
from tests.support.runs import ITEMS, plan, snapshot, trainer

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
PARTS = (["vision"], ["projector"], ["language"], ["vision", "projector", "language"])


def dealt(i: int, name: str) -> Iterator[Any]:
    """The cases of one method: two families, each with other parts."""
    for k in (0, 1):
        family, marked = list(zip(FAMILIES, MARKED, strict=True))[(2 * i + k) % len(FAMILIES)]
        marks = () if isinstance(marked, str) else marked.marks
        yield pytest.param(name, family, PARTS[(i + k) % len(PARTS)], marks=marks, id=f"{name}-{family}")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    models = tmp_path_factory.mktemp("models")
    return cache(lambda family: FAMILIES[family](models / family))


@pytest.mark.parametrize(
    ("name", "family", "parts"), [case for i, name in enumerate(DURING) for case in dealt(i, name)]
)
def test_two_steps_move_what_trains_and_nothing_else(
    folder_of: Callable[[str], Path], name: str, family: str, parts: list[str]
) -> None:
    parts = ["language"] if name in ADAPTERS else ["vision", "language"] if name == "hft" else parts
    subject = trainer(folder_of(family), DURING[name](), read={"general": ITEMS[:2]}, parts=parts)
    before = snapshot(subject)
    losses = [report.loss for report in subject.run(plan(2, only_pictures=True))]
    assert torch.isfinite(torch.tensor(losses)).tolist() == [True, True]
    moved = {
        tensor_name for tensor_name, value in snapshot(subject).items() if not torch.equal(value, before[tensor_name])
    }
    assert {part_of(tensor_name) for tensor_name in moved} == set(parts)
