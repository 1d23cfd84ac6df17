"""Methods that act during training take steps on every family, whichever parts train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA
from forgetbench.methods.operation import Operation
from forgetbench.methods.registry import SCHEMAS
from forgetbench.models.parts import part_of
from tests.support.families import FAMILIES, MARKED
from tests.support.runs import ITEMS, plan, snapshot, trainer

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
DURING: dict[str, Callable[[], Method]] = {
    key.partition("/")[2]: cls
    for key, cls in SCHEMAS.items()
    if key.startswith("method/") and not issubclass(cls, Operation)
} | {"rslora": lambda: LoRA(rank_stabilised=True), "dora": lambda: LoRA(weight_decomposed=True)}
ADAPTERS = {"lora", "rslora", "dora", "inc_lora", "o_lora", "moe_lora", "mr_lora"}
PARTS = (["vision"], ["projector"], ["language"], ["vision", "projector", "language"])


EVERY = 5
"""A family takes every fifth method, so that each method meets two families or more, with one part or with all."""
DEALT = {
    family: {name: PARTS[(place + i) % len(PARTS)] for i, name in enumerate(DURING) if i % EVERY == place % EVERY}
    for place, family in enumerate(FAMILIES)
}


def test_every_method_meets_two_families_or_more() -> None:
    assert all(sum(name in methods for methods in DEALT.values()) >= 2 for name in DURING)


@pytest.mark.parametrize("family", MARKED)
def test_two_steps_move_what_trains_and_nothing_else(tmp_path: Path, family: str) -> None:
    folder = FAMILIES[family](tmp_path / family)
    for name, dealt in DEALT[family].items():
        parts = ["language"] if name in ADAPTERS else ["vision", "language"] if name == "hft" else dealt
        subject = trainer(folder, DURING[name](), read={"general": ITEMS[:2]}, parts=parts)
        before = snapshot(subject)
        reports = list(subject.run(plan(2, only_pictures=True)))
        assert all(torch.isfinite(torch.tensor(report.loss)) for report in reports), name
        moved = {one for one, value in snapshot(subject).items() if not torch.equal(value, before[one])}
        assert {part_of(one) for one in moved} == set(parts), name
