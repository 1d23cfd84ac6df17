"""A run that is taken up again ends with the same bytes, whatever the method keeps."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from forgetbench.methods.base import Method
from forgetbench.methods.ewc import EWC
from forgetbench.methods.gmt import GMT
from forgetbench.methods.hft import HFT
from forgetbench.methods.inc_lora import IncLoRA
from forgetbench.methods.l2sp import L2SP
from forgetbench.methods.lora import LoRA
from forgetbench.methods.lwf import LwF
from forgetbench.methods.magnitude_mask import MagnitudeMask
from forgetbench.methods.mdgd import MDGD
from forgetbench.methods.mdgd_gm import MDGDGM
from forgetbench.methods.o_lora import OLoRA
from forgetbench.methods.spider import Spider
from forgetbench.models.checkpoint import load_resume, save_checkpoint, save_resume
from forgetbench.training.loop import Resume, Trainer
from tests.support.families import llava
from tests.support.runs import ITEMS, all_same_bits, plan, trainer

METHODS: list[Callable[[], Method]] = [
    L2SP,
    lambda: EWC(samples=3),
    LwF,
    HFT,
    GMT,
    Spider,
    MagnitudeMask,
    MDGD,
    lambda: MDGDGM(density=0.3, batches=2),
    lambda: LoRA(rank=2, dropout=0.3, weight_decomposed=True),
    lambda: OLoRA(rank=2, dropout=0.3),
    lambda: IncLoRA(rank=2, dropout=0.3),
]
STAGES = (2, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method()).__name__)
def test_six_steps_are_some_a_resume_point_on_disk_and_the_rest(
    folder: Path, tmp_path: Path, method: Callable[[], Method]
) -> None:
    def fresh() -> Trainer:
        return trainer(folder, method(), stages=len(STAGES), read={"general": ITEMS[:4]}, weight_decay=0.1)

    straight = fresh()
    losses = [report.loss for report in straight.run(plan(*STAGES))]

    first = fresh()
    losses_again, before = [], {}
    for report in islice(first.run(plan(*STAGES)), 3):
        losses_again.append(report.loss)
        if report.step == STAGES[0]:
            before = save_checkpoint(tmp_path, report.step, first.delta(), {"method": {}}).delta()
        save_resume(tmp_path / str(report.step), first.resume_point(report.step))
    for step in (1, 2, 3):  # within the first stage, between the two, and within the second
        point = load_resume(tmp_path / str(step))
        assert point is not None
        second = fresh()
        left = Resume(point, before if step == 3 else {})
        rest = [report.loss for report in second.run(plan(*STAGES), left)]
        assert losses_again[:step] + rest == losses
        assert all_same_bits(dict(second.delta()), dict(straight.delta()))
        assert all_same_bits(dict(second.resume_point(6).tensors), dict(straight.resume_point(6).tensors))
