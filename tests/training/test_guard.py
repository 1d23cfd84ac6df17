"""A run that is held to a budget of forgetting: where it stops, where it ends, and that being watched changes nothing.

The shipped model at a rate that costs it half of the digits in three steps.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from forgetbench.commands.eval_matrix import eval_matrix
from forgetbench.commands.finetune import finetune
from forgetbench.config import (
    CheckpointConfig,
    DataConfig,
    EvalMatrixConfig,
    FinetuneConfig,
    GuardConfig,
    MatrixConfig,
    ModelConfig,
    Over,
    RecipeConfig,
    RepresentationConfig,
    StageConfig,
    Tracker,
)
from forgetbench.core.records import Decoding, Precision
from forgetbench.data.catalogue import Catalogue
from forgetbench.evaluation.cells import CellStore
from forgetbench.evaluation.inference import ModelRunner
from forgetbench.methods.base import Method
from forgetbench.methods.wise_ft import WiseFT
from forgetbench.models import checkpoint
from forgetbench.models.checkpoint import list_checkpoints
from forgetbench.runs import guard
from forgetbench.runs.guard import BEYOND, ending_of, quadrants_of
from forgetbench.runs.run import read_run
from forgetbench.training import run as training

SETS = ["digits_naming", "emoji_category"]
WATCHED = GuardConfig(max_loss=12.0, datasets=SETS, items=40)


def config(
    outputs: Path,
    watch: GuardConfig = WATCHED,
    method: Method | None = None,
    tracker: Tracker = Tracker.none,
    **recipe: Any,
) -> FinetuneConfig:
    settings: dict[str, Any] = {"lr": 1e-3, "parts": ["language"], "steps": 4, "batch_size": 4, "warmup": 0.0}
    settings |= {"precision": Precision.fp32, "checkpoints": CheckpointConfig(every=1)}
    return FinetuneConfig(
        name="run",
        outputs=str(outputs),
        threads=1,
        model=ModelConfig(path="embedded:tiny"),
        data=DataConfig(stages=[StageConfig(set="fashion_naming")]),
        recipe=RecipeConfig(**(settings | recipe)),
        method=method or Method(),
        guard=watch,
        tracker=tracker,
    )


def trained(outputs: Path, **changes: Any) -> Path:
    finetune(config(outputs, **changes), outputs / "run")
    return outputs / "run"


def matrix(limit: int = 20) -> MatrixConfig:
    return MatrixConfig(
        datasets=SETS,
        decodings=[Decoding.choice],
        limit=limit,
        representation=RepresentationConfig(enabled=False),
    )


def left_by(run: Path) -> dict[str, bytes]:
    """Everything that a run leaves but what is measured, wherever it is."""
    here = str(run.parent).encode()
    names = ("guard.csv", "run.json", "checkpoints/*/*", f"{BEYOND}/*/*", "resume/*/*")
    return {
        str(path.relative_to(run)): path.read_bytes().replace(here, b"") for name in names for path in run.glob(name)
    }


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("stopped"), tracker=Tracker.tensorboard)


def test_a_run_stops_where_its_budget_is_shown_to_be_broken_and_ends_where_it_was_seen_to_be_kept(
    stopped: Path,
) -> None:
    rows = pd.read_csv(stopped / "guard.csv")
    assert rows["step"].tolist() == [1, 1, 2, 2, 3, 3]
    assert rows.groupby("step")["over"].any().tolist() == [False, True, True]
    assert rows.groupby("step")["broken"].any().tolist() == [False, False, True]
    assert rows.groupby("step")["decision"].first().tolist() == ["go on", "go on", "stop"]
    assert rows["spent"].iloc[-1] == pytest.approx(0.05 * 3 / 4)
    assert [checkpoint.step for checkpoint in list_checkpoints(stopped)] == [0, 1]
    assert sorted(path.name for path in (stopped / BEYOND).iterdir()) == ["step_000002", "step_000003"]
    assert len(pd.read_csv(stopped / "train.csv")) == 3
    assert not (stopped / "resume").exists()


def test_the_same_command_again_says_how_the_run_ended_and_makes_nothing(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(stopped.parent, tmp_path, dirs_exist_ok=True)
    before = left_by(tmp_path / "run")
    trained(tmp_path)
    output = capsys.readouterr().out
    assert "stopped after step 3: ID text, OOD image lost 50.0 points, at least 1" in output
    assert (
        "ends on step 1, whose estimates are within the budget; that its true loss is within it is not shown" in output
    )
    assert "training" not in output
    assert left_by(tmp_path / "run") == before


def test_every_look_goes_to_the_tracker(stopped: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(stopped / "tensorboard"))
    events.Reload()
    for group, rows in pd.read_csv(stopped / "guard.csv").groupby("group"):
        sent = events.Scalars(f"forgetbench/guard/{group}/loss")
        assert [point.step for point in sent] == rows["step"].tolist()
        assert [point.value for point in sent] == pytest.approx(rows["loss"].tolist(), abs=1e-6)


def test_being_watched_changes_no_weight(stopped: Path, tmp_path: Path) -> None:
    unwatched = trained(tmp_path, watch=GuardConfig())
    for folder, step in (("checkpoints", 1), (BEYOND, 2), (BEYOND, 3)):
        watched = (stopped / folder / f"step_{step:06d}/delta.safetensors").read_bytes()
        assert watched == (unwatched / f"checkpoints/step_{step:06d}/delta.safetensors").read_bytes()
    assert not (unwatched / "guard.csv").exists()
    assert "guard" not in json.loads((unwatched / "run.json").read_text())["config"]
    assert json.loads((stopped / "run.json").read_text())["config"]["guard"]["max_loss"] == 12.0


def test_what_the_guard_asked_is_not_asked_again_and_is_what_eval_matrix_makes(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(stopped.parent, tmp_path / "outputs")
    outputs = tmp_path / "outputs"
    score = EvalMatrixConfig(run=str(outputs / "run"), outputs=str(outputs), threads=1, matrix=matrix())
    with monkeypatch.context() as patched:
        patched.setattr(ModelRunner, "answers", lambda *_: pytest.fail("asked again"))
        eval_matrix(score, outputs)
    made = {path.name: path for path in (stopped.parent / ".cells").glob("*.parquet")}
    shutil.rmtree(outputs / ".cells")
    eval_matrix(score, outputs)
    names = [path.stem for path in (outputs / ".cells").glob("*.parquet")]
    assert len(names) == 2 * len(SETS)
    for name in names:
        metric = Catalogue().load(SETS[0]).metric
        ours, theirs = (CellStore(folder).read(name, metric) for folder in (stopped.parent, outputs))
        assert f"{name}.parquet" in made
        assert ours is not None
        assert theirs is not None
        pd.testing.assert_frame_equal(ours.frame, theirs.frame)


class KilledError(BaseException):
    """As if by SIGKILL: nobody handles it."""


def at(call: int, original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is killed at a call, counted from 1, before it does anything."""
    calls = 0

    def killed(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KilledError
        return original(*given, **named)

    return killed


def test_a_run_that_is_killed_at_every_place_ends_with_the_same_bytes(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [
        (ModelRunner, "answers", 2),  # while the base is asked
        (ModelRunner, "answers", 2),  # the other set of the base is the first call; then step 1 is looked at
        (CellStore, "write", 2),  # between two sets of a look
        (guard, "write_csv", 1),
        (training, "save_resume", 1),  # of step 2
        (guard, "write_csv", 3),  # of step 3, which stops the run
        (guard, "move_beyond_budget", 1),
        (Path, "replace", 2),  # between the two checkpoints that are put aside
        (checkpoint, "drop_resume", 1),
    ]
    survived = []
    for owner, name, call in places:
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, at(call, getattr(owner, name)))
            try:
                trained(tmp_path, tracker=Tracker.tensorboard)
                survived.append(name)
            except KilledError:
                pass
    run = trained(tmp_path, tracker=Tracker.tensorboard)
    assert survived == []
    assert left_by(run) == left_by(stopped)


def test_a_run_without_a_look_within_its_budget_ends_on_the_base_and_can_be_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = replace(WATCHED, max_loss=0.0, every=3)
    run = trained(tmp_path, watch=watch, method=WiseFT())
    assert [checkpoint.step for checkpoint in list_checkpoints(run)] == [0]
    output = capsys.readouterr().out
    assert "the run ends on the untouched base" in output
    assert "wise_ft has nothing to work on" in output
    eval_matrix(EvalMatrixConfig(run=str(run), outputs=str(tmp_path), threads=1, matrix=matrix()), tmp_path)
    assert set(pd.read_csv(run / "scores.csv")["step"]) == {0}


def test_a_run_within_its_budget_keeps_its_checkpoints_and_says_what_its_looks_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path, watch=replace(WATCHED, every=3, over=Over.mean), lr=1e-5)
    assert [checkpoint.step for checkpoint in list_checkpoints(run)] == [0, 1, 2, 3, 4]
    rows = pd.read_csv(run / "guard.csv")
    assert rows["step"].tolist() == [3, 4]
    assert rows["group"].tolist() == ["mean", "mean"]
    assert rows["n"].tolist() == [40, 40]
    assert rows["decision"].tolist() == ["go on", "end"]
    ending = ending_of(run)
    assert ending is not None
    assert (ending.step, ending.is_stopped) == (4, False)
    captured = capsys.readouterr()
    assert "guard: its looks took" in captured.out
    assert "guard.max_loss=12 is less than so few items can show" in captured.err


def test_a_dataset_keeps_its_quadrant_over_the_stages_of_a_run(tmp_path: Path) -> None:
    stages = [StageConfig(set="fashion_naming"), StageConfig(set="digits_naming")]
    several = replace(config(tmp_path), data=DataConfig(stages=stages))
    sets = ["fashion_shifted", "emoji_naming", "digits_yesno", "emoji_category"]
    quadrants = quadrants_of(several, sets, Catalogue())
    expected = ("id_text-id_image", "id_text-ood_image", "ood_text-id_image", "ood_text-ood_image")
    assert quadrants == dict(zip(sets, expected, strict=True))


def test_a_run_without_a_budget_has_nothing_of_a_guard_in_its_record(stopped: Path, tmp_path: Path) -> None:
    run = read_run(stopped)
    assert "guard" in run.settings
    assert "guard" not in replace(run, config=replace(run.config, guard=GuardConfig())).settings
