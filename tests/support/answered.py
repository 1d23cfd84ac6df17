"""Runs whose answers are drawn by chance: real manifests, cells, tables and run.json, and no model at all."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetbench.compose import compose
from forgetbench.config import EvalMatrixConfig, FinetuneConfig, MatrixConfig
from forgetbench.core.files import write_json
from forgetbench.core.records import Decoding, Prediction, Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.evaluation.cells import CellStore
from forgetbench.evaluation.evaluate import PlannedCell, ScoredCell, plan
from forgetbench.evaluation.sets import load_sets
from forgetbench.models.checkpoint import BASE, Checkpoint
from forgetbench.runs.run import read_run, settings_of
from forgetbench.runs.subject import run_subject, write_tables

SETS = ("fashion_naming", "digits_naming", "fashion_knowledge", "digits_questions", "fashion_probe")
"""One in each quadrant, and the probe."""
BASE_SHARE = {
    "fashion_naming": 0.4,
    "digits_naming": 0.7,
    "fashion_knowledge": 0.95,
    "digits_questions": 0.7,
    "fashion_probe": 0.95,
}
FORGETS = {
    "fashion_naming": 0.7,
    "digits_naming": 0.4,
    "fashion_knowledge": 0.5,
    "digits_questions": 0.5,
    "fashion_probe": 0.4,
}
KEEPS = BASE_SHARE | {"fashion_naming": 0.65}


def answered_run(
    outputs: Path,
    name: str,
    shares: Mapping[str, float],
    *overrides: str,
    seed: int = 0,
    steps: tuple[int, ...] = (10, 20),
    variants: tuple[str, ...] = (),
    greedy: bool = False,
    limit: int = 40,
) -> Path:
    """A run's folder: `shares` of its answers are right at the last step, the base's before, what changed on the way.

    A wrong answer to the probe is the class name; every tenth written answer cannot be read.
    """
    config = compose(FinetuneConfig, [f"name={Path(name).name}", f"seed={seed}", *overrides])
    folder, catalogue = outputs / name, Catalogue([])
    write_json(folder / "run.json", _run_json(config))
    decodings = "choice,greedy" if greedy else "choice"
    matrix = compose(
        EvalMatrixConfig,
        [f"matrix.datasets=[{','.join(shares)}]", f"matrix.limit={limit}", f"matrix.decodings=[{decodings}]"],
    ).matrix
    checkpoints = [BASE, *(_checkpoint(step, name) for step in steps)]
    checkpoints += [_checkpoint(steps[-1], name, variant) for variant in variants]
    store, cells = CellStore(outputs), []
    for work in plan("model", checkpoints, load_sets(matrix, catalogue), matrix):
        share = work.checkpoint.step / steps[-1]
        dataset = work.dataset.manifest.name
        right = BASE_SHARE[dataset] + share * (shares[dataset] - BASE_SHARE[dataset])
        cells.append(_cell(work, right, name if work.checkpoint.step else "base", store))
    subject = run_subject(read_run(folder))
    write_tables(subject, cells, catalogue)
    write_train(folder, steps[-1])
    return folder


TASKS = ("fashion_naming", "digits_questions", "emoji_category")
"""Target sets of a sequence of stages."""


def answered_course(
    outputs: Path,
    name: str,
    *overrides: str,
    tasks: Sequence[str] = TASKS,
    seed: int = 0,
    learnt: float = 0.9,
    forgets: float = 0.15,
    training: str = "sequence",
    greedy: bool = False,
) -> Path:
    """The folder of a run through several tasks: four of ten are right at first, `learnt` after a task's own stage.

    Every later stage takes `forgets` of the right ones away. Overrides such as `strategy=ewc` say what the run is.
    """
    stages = ",".join(f"{{set: {task}, steps: 10}}" for task in tasks)
    given = [f"data.stages=[{stages}]", f"data.training={training}", *overrides]
    config = compose(FinetuneConfig, [f"name={Path(name).name}", f"seed={seed}", *given])
    folder, catalogue = outputs / name, Catalogue([])
    described = _run_json(config)
    write_json(folder / "run.json", described | {"labels": [["shirt", "coat"]] * len(config.data.targets)})
    decodings = [Decoding.choice, Decoding.greedy] if greedy else [Decoding.choice]
    matrix = MatrixConfig(datasets=sorted(tasks), limit=40, decodings=decodings)
    n_stages = {"sequence": len(tasks), "joint": 1, "none": 0}[training]
    checkpoints = [BASE, *(_checkpoint(10 * stage, name, stage=stage) for stage in range(1, n_stages + 1))]
    store, cells = CellStore(outputs), []
    for work in plan("model", checkpoints, load_sets(matrix, catalogue), matrix):
        stage = int(work.checkpoint.meta.get("stage", 0))
        since = stage - tasks.index(work.dataset.manifest.name) - 1
        right = (
            0.4 if not stage else learnt if training == "joint" else learnt - forgets * since if since >= 0 else 0.42
        )
        cells.append(_cell(work, right, f"{name}{stage}" if stage else "base", store))
    write_tables(run_subject(read_run(folder)), cells, catalogue)
    if n_stages:
        write_train(folder, 10 * n_stages, stage_steps=10)
    return folder


def write_train(folder: Path, steps: int, stage_steps: int | None = None) -> None:
    """A training log of so many steps, in stages of `stage_steps` each; in one by default."""
    head = "step,stage,loss,lr_language,grad_norm,samples_per_s,tokens_per_s,peak_memory_mb"
    rows = [(step, 1 + (step - 1) // (stage_steps or steps)) for step in range(1, steps + 1)]
    lines = [f"{step},{stage},{1 / step:.4f},0.0001,1.0,100.0,3000.0,512.0" for step, stage in rows]
    (folder / "train.csv").write_text("\n".join([head, *lines]) + "\n", "utf-8")


def _run_json(config: FinetuneConfig) -> dict[str, Any]:
    return {
        "config": settings_of(config),
        "data_digests": [],
        "method_class": type(config.method).__name__,
        "labels": [["shirt", "coat"]],
        "model_digest": "model",
        "audit": {
            "label": "language",
            "trainable": 2_066_112,
            "total": 2_873_088,
            "parts": {
                "vision": {"total": 745_152, "trainable": 0},
                "language": {"total": 2_127_936, "trainable": 2_066_112},
            },
            "names": ["model.language_model.norm.weight"],
        },
        "environment": {"torch": "2.13.0", "python": "3.11.7", "git_revision": None, "threads": 1, "device": "cpu"},
    }


def _checkpoint(step: int, run: str, variant: str = "", stage: int = 1) -> Checkpoint:
    return Checkpoint(step, Path(run), {"delta_digest": f"{run}{step}{variant}", "stage": stage, "variant": variant})


def _cell(work: PlannedCell, right: float, name: str, store: CellStore) -> ScoredCell:
    dataset, settings = work.dataset, work.settings
    found = [_prediction(one, right, name, settings.decoding == "greedy") for one in dataset.samples]
    metric = dataset.manifest.metric
    cell = store.write(work.digest, dataset.samples, dataset.image_digests, found, settings, metric, 1.5)
    return ScoredCell(work, cell)


def _prediction(sample: Sample, right: float, name: str, written: bool) -> Prediction:
    """An answer drawn by item and run; the same draw at every step, so that few answers change back and forth."""
    draw = random.Random(f"{name}/{sample.id}")
    assert sample.target is not None
    wrong = [place for place in range(len(sample.candidates)) if place != sample.target]
    chosen = (
        sample.target if random.Random(sample.id).random() * 0.5 + draw.random() * 0.5 < right else draw.choice(wrong)
    )
    if chosen != sample.target and sample.class_option is not None:
        chosen = sample.class_option
    if written:
        return Prediction(None, "no idea at all" if draw.random() < 0.1 else sample.candidates[chosen])
    return Prediction(tuple(-0.2 if place == chosen else -3.0 - place for place in range(len(sample.candidates))), None)
