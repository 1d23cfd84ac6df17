from __future__ import annotations

import csv
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from forgetbench.compose.checks import tracker_problems
from forgetbench.config import Tracker
from forgetbench.core.errors import UserError
from forgetbench.core.files import write_json
from forgetbench.methods.base import Method
from forgetbench.training.run import train
from forgetbench.training.tracking import connect_tracker, send_scores
from tests.support.families import llava
from tests.support.runs import plan, trainer

META = {"method": {}, "config": {"name": "run", "recipe": {"lr": 1e-2, "parts": ["language"], "warmup": None}}}


class StandIn(GeneralTracker):
    """Takes notes; breaks at a step if told to."""

    name, requires_logging_directory = "stand-in", False
    breaks_at: int | None = None
    notes: list[Any]

    def __init__(self, **settings: Any) -> None:
        super().__init__(_blank=True)
        type(self).notes.append(settings)

    @property
    def tracker(self) -> Any:
        return self

    def start(self) -> None:
        pass

    def define_metric(self, names: str, step_metric: str) -> None:
        type(self).notes.append((names, step_metric))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        type(self).notes.append(values)

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        if step == type(self).breaks_at:
            raise ConnectionError("the network is gone")
        type(self).notes.append(step)

    def finish(self) -> None:
        type(self).notes.append("finished")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    kind = type("One", (StandIn,), {"notes": [], "breaks_at": None})
    for name in ("wandb", "trackio", "mlflow"):
        monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, name, kind)
    return kind


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("model"))


def begun(folder: Path) -> Path:
    write_json(folder / "run.json", META)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "train.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_tensorboard_holds_every_step_of_train_csv_once_though_the_run_was_resumed(model: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = begun(tmp_path / "run")
    interrupted = trainer(model, Method())
    with pytest.raises(KeyboardInterrupt):
        train(run, Interrupted(interrupted, after=3), plan(4), [2, 4], META, Tracker.tensorboard)  # type: ignore[arg-type]
    assert [row["step"] for row in rows(run)] == ["1", "2", "3"]
    time.sleep(1.1)  # its files are read in the order of their names, which begin with whole seconds
    train(run, trainer(model, Method()), plan(4), [2, 4], META, Tracker.tensorboard)

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    logged = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    assert {"loss", "lr_language", "lr_projector", "grad_norm", "samples_per_s", "peak_memory_mb"} <= logged.keys()
    assert [event.step for event in logged["loss"]] == [1, 2, 3, 4]
    for tag in ("loss", "lr_language", "grad_norm"):
        stored = [float(row[tag]) for row in rows(run)]
        assert [event.value for event in logged[tag]] == pytest.approx(stored, rel=1e-6)
    (settings,) = (run / "tensorboard").rglob("hparams.yml")
    assert "recipe.lr: 0.01" in settings.read_text()


class Interrupted:
    """A trainer that is stopped after a step."""

    def __init__(self, inner: Any, after: int) -> None:
        self._inner, self._after = inner, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run(self, *arguments: Any) -> Any:
        for report in self._inner.run(*arguments):
            if report.step > self._after:
                raise KeyboardInterrupt
            yield report


def test_a_tracker_that_breaks_is_named_once_and_training_goes_on(
    model: Path, tmp_path: Path, stand_in: type[StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.breaks_at = 2
    run = begun(tmp_path / "run")
    train(run, trainer(model, Method()), plan(4), [4], META, Tracker.wandb)
    assert [row["step"] for row in rows(run)] == ["1", "2", "3", "4"]
    assert (run / "checkpoints/step_000004").is_dir()
    assert [note for note in stand_in.notes if isinstance(note, int)] == [1]
    assert capsys.readouterr().err.count("the network is gone") == 1


def test_a_resumed_run_goes_on_in_the_same_run_of_the_tracker(tmp_path: Path, stand_in: type[StandIn]) -> None:
    run = begun(tmp_path / "run")
    with connect_tracker(Tracker.wandb, run, META["config"]) as connection:
        connection.log(1, {"loss": 1.0})
    (run / "train.csv").write_text("step,stage,loss\n1,1,1.0\n2,1,0.5\n3,1")  # killed in the middle of a line
    with connect_tracker(Tracker.wandb, run, META["config"]) as connection:
        for step in (1, 2, 3):
            connection.log(step, {"loss": 1.0})
    first, settings, *notes = stand_in.notes
    assert settings["recipe.lr"] == 1e-2
    assert notes == [1, "finished", first, 3, "finished"]
    assert (first["name"], first["resume"]) == ("run", "allow")
    write_json(run / "run.json", {**META, "other": 1})
    with connect_tracker(Tracker.wandb, run, META["config"]):
        pass
    assert stand_in.notes[-2]["id"] != first["id"]


def test_mlflows_run_is_found_again_by_its_tag(
    tmp_path: Path, stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    module = types.ModuleType("mlflow")

    def search(filter_string: str, **_: Any) -> list[Any]:
        asked.append(filter_string)
        return [types.SimpleNamespace(info=types.SimpleNamespace(run_id="abc"))] if len(asked) > 1 else []

    module.search_runs = search  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    run = begun(tmp_path / "run")
    for _ in range(2):
        with connect_tracker(Tracker.mlflow, run, {}):
            pass
    starts = [note for note in stand_in.notes if isinstance(note, dict) and "run_id" in note]
    assert [start["run_id"] for start in starts] == [None, "abc"]
    assert asked[0] == f"tags.forgetbench = '{starts[0]['tags']['forgetbench']}'" == asked[1]


def test_a_tracker_that_cannot_be_started_is_refused_before_the_first_step(
    tmp_path: Path, stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: StandIn) -> None:
        raise RuntimeError("no API key")

    monkeypatch.setattr(stand_in, "start", fails)
    with (
        pytest.raises(UserError, match=r"tracker=trackio cannot be started: no API key"),
        connect_tracker(Tracker.trackio, begun(tmp_path / "run"), {}),
    ):
        pass


def test_a_tracker_that_is_not_installed_is_refused_with_the_command_that_installs_it() -> None:
    assert list(tracker_problems(Tracker.none, find=lambda _: None)) == []
    assert list(tracker_problems(Tracker.mlflow, find=lambda name: name)) == []
    (problem,) = tracker_problems(Tracker.mlflow, find=lambda _: None)
    assert "pip install 'forgetbench[mlflow]'" in problem.message


SCORES: dict[int, dict[str, float]] = {
    0: {"forgetbench/a": 0.5},
    4: {"forgetbench/a": 0.25, "forgetbench/a/delta": -0.25},
}


def points(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_scores_stand_beside_training_in_tensorboard_once_however_often_a_run_is_scored(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    with connect_tracker(Tracker.tensorboard, run, {}) as connection:
        connection.log(4, {"loss": 1.0})
        connection.log_scores(4, {"forgetbench/a": 0.75})  # of a draw, while training
    for last in (0.25, 0.125):
        send_scores(Tracker.tensorboard, run, {**SCORES, 4: {"forgetbench/a": last}})
    assert points(run) == {"loss": [(4, 1.0)], "forgetbench/a": [(0, 0.5), (4, 0.125)]}
    assert not (run / "tracked.json").exists()


def test_scores_that_a_tracker_has_are_not_sent_again(
    tmp_path: Path, stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path / "run")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hunter2@host")
    send_scores(Tracker.trackio, run, SCORES)
    first = list(stand_in.notes)
    assert [note for note in first if isinstance(note, int)] == [0, 4]
    send_scores(Tracker.trackio, run, SCORES)
    assert stand_in.notes == first
    send_scores(Tracker.trackio, run, {**SCORES, 4: {"forgetbench/a": 0.3, "forgetbench/a/delta": -0.25}})
    assert stand_in.notes[len(first) + 1 :] == [4, "finished"]
    assert "hunter2" not in (run / "tracked.json").read_text()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://elsewhere")
    send_scores(Tracker.trackio, run, SCORES)
    assert [note for note in stand_in.notes[len(first) + 3 :] if isinstance(note, int)] == [0, 4]


def test_a_look_while_training_is_not_sent_again_when_the_run_is_scored(
    tmp_path: Path, stand_in: type[StandIn]
) -> None:
    run = begun(tmp_path / "run")
    with connect_tracker(Tracker.trackio, run, {}) as connection:
        connection.log_scores(4, {"forgetbench/guard/a/loss": 0.1})
    before = len(stand_in.notes)
    send_scores(Tracker.trackio, run, {4: {"forgetbench/guard/a/loss": 0.1}})
    assert stand_in.notes[before:] == []


def test_what_a_tracker_did_not_take_is_sent_the_next_time(
    tmp_path: Path, stand_in: type[StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(tmp_path / "run")
    stand_in.breaks_at = 4
    send_scores(Tracker.trackio, run, SCORES)
    assert "the network is gone" in capsys.readouterr().err
    stand_in.breaks_at = None
    send_scores(Tracker.trackio, run, SCORES)
    assert [note for note in stand_in.notes if isinstance(note, int)] == [0, 4]


def test_wandb_gets_scores_on_an_axis_of_their_own_as_its_steps_only_go_up(
    tmp_path: Path, stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[tuple[dict[str, Any], int | None]] = []
    monkeypatch.setattr(stand_in, "name", "wandb")
    monkeypatch.setattr(stand_in, "log", lambda _, values, step=None: logged.append((values, step)))
    run = begun(tmp_path / "run")
    send_scores(Tracker.wandb, run, SCORES)
    assert stand_in.notes[1] == ("forgetbench/*", "forgetbench/step")
    assert logged == [({**numbers, "forgetbench/step": step}, None) for step, numbers in SCORES.items()]


def test_a_base_that_no_run_is_of_is_tracked_under_its_folders_name(tmp_path: Path, stand_in: type[StandIn]) -> None:
    for name in ("base-a", "base-b"):
        (tmp_path / name).mkdir()
        send_scores(Tracker.trackio, tmp_path / name, {0: {"forgetbench/a": 0.5}})
    starts = [note["name"] for note in stand_in.notes if isinstance(note, dict)]
    assert [start.rpartition("-")[0] for start in starts] == ["base-a", "base-b"]
    assert len({start.rpartition("-")[2] for start in starts}) == 2


def test_a_tracker_that_cannot_take_scores_is_named_with_the_command_that_sends_them_later(
    tmp_path: Path, stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: StandIn) -> None:
        raise RuntimeError("no API key")

    monkeypatch.setattr(stand_in, "start", fails)
    run = begun(tmp_path / "run")
    with pytest.raises(UserError, match=r"no API key\n.*\n?.*forgetbench score run=\S+ tracker=trackio` sends them"):
        send_scores(Tracker.trackio, run, SCORES)
