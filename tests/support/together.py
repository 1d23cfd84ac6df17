"""Short trainings by two processes, and by one: `torchrun -m tests.support.together cases <model> <folder>`.

Each process asserts that there are two and, where tensors are sliced, that every trained one is; the main process
writes what a run reported and where its weights ended.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from forgetbench.cli import app
from forgetbench.commands import eval_matrix
from forgetbench.config import ModelConfig, RecipeConfig, Sharding
from forgetbench.core.errors import UserError
from forgetbench.core.processes import ProcessGroup, join_process_group
from forgetbench.core.records import Precision
from forgetbench.data.collate import Encoder
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.evaluation.journal import Journal
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
from forgetbench.methods.spider import Spider
from forgetbench.models.load import load_model
from forgetbench.training.loop import Resume, StepReport, Trainer
from forgetbench.training.plan import Stage
from forgetbench.training.prepare import prepare
from forgetbench.training.run import train
from tests.support.conversations import TALKS
from tests.support.runs import item

SHOWN = [item(i) for i in range(15) if i % 5 != 4]
TOLD, ASIDE = ([item(i) for i in range(start, start + 60, 5)] for start in (4, 64))
RECIPE: dict[str, Any] = {
    "lr": 1e-4,
    "parts": ["projector", "language"],
    "batch_size": 4,
    "gradient_accumulation": 2,
    "weight_decay": 0.1,
    "precision": Precision.fp32,
}
ALL_PARTS = ["vision", "projector", "language"]

TRAIN = [
    "finetune", "model=tiny_random", "recipe=language_projector_low_lr", "recipe.steps=4", "recipe.batch_size=8",
    "recipe.gradient_accumulation=2", "recipe.precision=fp32", "recipe.mix.data=[words_naming]",
    "recipe.mix.ratio=0.5", "recipe.checkpoints.log_spaced=1", "threads=1", "name=run",
]  # fmt: skip
GUARDED = [
    "finetune", "recipe=full_high_lr", "recipe.lr=3e-3", "recipe.warmup=0", "recipe.steps=4", "recipe.batch_size=4",
    "recipe.checkpoints.log_spaced=null", "recipe.checkpoints.every=1", "guard.max_loss=0",
    "guard.datasets=[digits_naming]", "guard.items=20", "threads=1", "name=guarded",
]  # fmt: skip
SCORE = [
    "eval-matrix", "run=outputs/run", "threads=1", "matrix.limit=10", "matrix.batch_size=3",
    "matrix.datasets=[fashion_naming,emoji_open]", "matrix.representation.images=4",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One training."""

    sharding: Sharding = Sharding.fsdp2
    method: Callable[[], Method] = Method
    steps: int = 3
    message: bool = True
    """Most items are without a picture: some processes, and some steps, see none at all."""
    recipe: dict[str, Any] = field(default_factory=dict)
    frozen: torch.dtype = torch.float32
    stages: tuple[dict[str, Any], ...] = ({},)
    """What each changes of the recipe."""
    talks: bool = False
    """Conversations among the items."""

    def shown(self, step: int) -> list[bool]:
        """Whether each micro-batch of each of two processes shows a picture."""
        samples = stages(self)[0].stream.batch(step, 4)
        return [bool(sample.images) for sample in samples]

    def recipes(self) -> list[RecipeConfig]:
        """One per stage."""
        return [RecipeConfig(**(RECIPE | self.recipe | stage)) for stage in self.stages]


# The second stage trains other parts than the first.
OTHER_PARTS = ({"parts": ["projector"], "gradient_accumulation": 1}, {"parts": ["language"]})
CASES = {
    "ddp": Case(Sharding.none, steps=20, recipe={"parts": ALL_PARTS}),
    "ddp, ewc": Case(Sharding.none, lambda: EWC(samples=5, reference=[]), steps=2, message=False, stages=OTHER_PARTS),
    "ddp, inc_lora": Case(Sharding.none, lambda: IncLoRA(rank=2), steps=2, stages=({}, {})),
    "ddp, talks": Case(Sharding.none, steps=3, message=False, recipe={"parts": ALL_PARTS}, talks=True),
    "ddp, talks, frozen tower": Case(Sharding.none, steps=3, message=False, recipe={"parts": ["language"]}, talks=True),
    "ddp, mdgd": Case(Sharding.none, MDGD, message=False),
    "fsdp2": Case(steps=20, recipe={"parts": ALL_PARTS}),
    "talks": Case(recipe={"parts": ["language"]}, talks=True),
    "frozen tower": Case(recipe={"parts": ["language"]}),
    "projector": Case(recipe={"parts": ["projector"]}),
    "projector and last layer": Case(recipe={"parts": ["projector", "language"], "language_last_layers": 1}),
    "modules": Case(recipe={"parts": ["vision.mlp", "language.layers_1_to_1.attention", "language.norms"]}),
    "checkpointing": Case(recipe={"parts": ALL_PARTS, "gradient_checkpointing": True}),
    "lora": Case(method=lambda: LoRA(rank=2)),
    "spider": Case(method=Spider),
    "gmt": Case(method=GMT),
    "magnitude_mask": Case(method=MagnitudeMask),
    "l2sp": Case(method=lambda: L2SP(alpha=1.0)),
    "hft": Case(method=HFT, recipe={"parts": ["language"]}),
    "lora on bf16": Case(method=lambda: LoRA(rank=2), recipe={"precision": Precision.bf16}, frozen=torch.bfloat16),
}
RESUMED = Case(method=Spider, steps=6)
UNEVEN = Case(stages=({}, {"batch_size": 2}))  # micro-batches of 2, then of 1
KEEP, META = (3, 6), {"method": {}}


def stages(case: Case) -> list[Stage]:
    """Pictures and texts, mixed."""
    items = [*SHOWN, *TOLD] if case.message else SHOWN
    items = [*TALKS, *items] if case.talks else items
    aside = [WeightedSet("aside", ASIDE, 1.0)] if case.message else []
    stream = MixedStream([WeightedSet("toy", items, 1.0)], aside, 0.5 if aside else 0.0, seed=3)
    return [Stage("toy", stream, case.steps, "digest", recipe, items=items) for recipe in case.recipes()]


def trainer(model: Path, case: Case, sharding: Sharding = Sharding.none) -> Trainer:
    """Ready to train, in as many processes as there are."""
    torch.set_num_threads(1)
    recipes, method = case.recipes(), case.method()
    loaded = load_model(ModelConfig(path=str(model)))
    trainable = prepare(loaded.model, recipes, method, seed=0).trainable_by_stage
    for parameter in loaded.model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(case.frozen)
    return Trainer(
        loaded, Encoder(loaded.processor), method, recipes[0], seed=0, trainable_by_stage=trainable, sharding=sharding
    )


def report_case(subject: Trainer, case: Case, target: Path) -> None:
    """Train; the main process writes reports and changed weights beside each other."""
    reports = []
    for report in subject.run(stages(case)):
        reports.append(asdict(report))
        if case.sharding is Sharding.fsdp2 and subject.accelerator.num_processes > 1:
            assert all(isinstance(parameter, DTensor) for parameter in subject.trainable.values())
    delta = subject.delta()
    if subject.accelerator.is_main_process:
        save_file(delta, target.with_suffix(".safetensors"))
        target.with_suffix(".json").write_text(json.dumps(reports))


class KilledError(Exception):
    """Stands for a kill."""


def kill_after(step: int, subject: Trainer, folder: Path, case: Case) -> None:
    """Train until `step` is saved, then stop without another word."""
    whole = subject.run

    def cut(given: Sequence[Stage], resume: Resume | None = None) -> Iterator[StepReport]:
        yield from islice(whole(given, resume), step)
        raise KilledError

    subject.run = cut  # type: ignore[method-assign]
    with suppress(KilledError):
        train(folder, subject, stages(case), KEEP, META)


def finish(subject: Trainer, folder: Path, case: Case) -> None:
    """Train to the end, from where the run stopped if it was begun."""
    train(folder, subject, stages(case), KEEP, META)


def refused(action: Callable[[], object]) -> str:
    """What a UserError says."""
    with pytest.raises(UserError) as caught:
        action()
    return str(caught.value)


def main(model: Path, folder: Path) -> None:
    """All that two processes do together, in one start of them: each start takes longer than the rest."""
    process_group = join_process_group()
    assert process_group.size == 2, process_group
    for name, case in CASES.items():
        report_case(trainer(model, case, case.sharding), case, folder / name)
    case = RESUMED
    finish(trainer(model, case, Sharding.fsdp2), folder / "whole", case)
    kill_after(3, trainer(model, case, Sharding.fsdp2), folder / "killed", case)
    if process_group.is_main:
        shutil.copytree(folder / "killed", folder / "killed, then sliced")
    process_group.broadcast(None)
    for name in ("killed, then sliced", "killed alone, then sliced"):
        finish(trainer(model, case, Sharding.fsdp2), folder / name, case)
    uneven = trainer(model, UNEVEN)
    refusals = {
        "uneven": refused(lambda: next(uneven.run(stages(UNEVEN)))),
        "method": refused(lambda: trainer(model, Case(method=LwF), Sharding.fsdp2)),
    }
    command(folder / "command")
    if process_group.is_main:
        (folder / "refusals.json").write_text(json.dumps(refusals))


def command(folder: Path) -> None:
    """Train and score through the command line; then score once more, each process as a command of its own."""
    process_group, asked, add = join_process_group(), set[int](), Journal.add
    together, apart, guarded = (folder / name for name in ("together", "apart", "guarded"))
    for place in (together, guarded):
        place.mkdir(parents=True, exist_ok=True)
    os.chdir(together)
    assert not app([*TRAIN, "sharding=fsdp2"], standalone_mode=False)
    if process_group.is_main:
        for name in ("apart", "alone"):
            shutil.copytree(together, folder / name)
    Journal.add = lambda self, number, entry: (asked.add(number), add(self, number, entry))  # type: ignore
    assert not app(SCORE, standalone_mode=False)
    Journal.add = add  # type: ignore[method-assign]
    shares = process_group.gather([sorted(asked)])
    if process_group.is_main:
        (folder / "shares.json").write_text(json.dumps(shares))
    os.chdir(guarded)
    assert not app(GUARDED, standalone_mode=False)
    os.chdir(apart)
    eval_matrix.join_process_group = ProcessGroup
    assert not app(SCORE, standalone_mode=False)


def family_case(name: str) -> Case:
    """Everything trains; PaliGemma's processor refuses texts alone."""
    return Case(recipe={"parts": ALL_PARTS}, message=name != "paligemma")


def families(models: Path, folder: Path) -> None:
    """A few steps of every model in a folder."""
    assert join_process_group().size == 2
    for model in sorted(models.iterdir()):
        case = family_case(model.name)
        report_case(trainer(model, case, Sharding.fsdp2), case, folder / model.name)


if __name__ == "__main__":
    {"cases": main, "families": families}[sys.argv[1]](Path(sys.argv[2]).absolute(), Path(sys.argv[3]).absolute())
