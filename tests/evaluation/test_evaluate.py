"""What is asked, and what is not: a stand-in for the model writes down every batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from forgetbench.config import MatrixConfig, ReasoningConfig
from forgetbench.core.processes import ProcessGroup
from forgetbench.core.records import PROBE_SUFFIX, AnswerKind, Decoding, Prediction, Sample
from forgetbench.data.manifest import Manifest
from forgetbench.evaluation import evaluate
from forgetbench.evaluation.cells import CellStore
from forgetbench.evaluation.evaluate import Evaluator, PlannedCell, ScoredCell, plan
from forgetbench.evaluation.journal import Entry, Journal
from forgetbench.evaluation.runner import Answers
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.evaluation.settings import Settings
from forgetbench.models.checkpoint import BASE, Checkpoint

SAMPLES = [Sample.question(f"i{i}", f"question {i}", f"i{i}", AnswerKind.text, references=(f"i{i}",)) for i in range(7)]
DATASET = EvaluationSet(Manifest(name="facts", image_domains=["x"], text_tasks=["y"]), SAMPLES, lambda: SAMPLES)
CONFIG = MatrixConfig(datasets=["facts"], decodings=[Decoding.greedy])
LATER = Checkpoint(10, Path("step_000010"), {"delta_digest": "d10"})


@dataclass
class Layout:
    batches: list[list[int]]


@dataclass
class StandIn:
    """Answers every item with its own id, and fails after so many batches."""

    layout: list[list[int]] = field(default_factory=lambda: [[0, 3, 5], [1, 2, 4], [6]])
    fails_after: int = 99
    asked: list[tuple[str, int]] = field(default_factory=list)
    at: str = ""

    def use_checkpoint(self, checkpoint: Checkpoint) -> None:
        self.at = checkpoint.name

    def batches(self, dataset: EvaluationSet) -> Layout:
        return Layout(self.layout)

    def beyond_context(self, *_: object) -> None:
        """Every item fits."""

    def resolve(self, dataset: EvaluationSet, settings: Settings) -> Settings:
        return replace(settings, max_new_tokens=9)

    def answers(self, dataset: EvaluationSet, numbers: Sequence[int], settings: Settings) -> Iterator[Answers]:
        for number in numbers:
            yield Answers(number, self.answer(dataset, number), 0.0)

    def answer(self, dataset: EvaluationSet, number: int) -> list[Prediction]:
        if len(self.asked) == self.fails_after:
            raise KeyboardInterrupt
        self.asked.append((self.at, number))
        return [Prediction(text=dataset.samples[item].id) for item in self.layout[number]]


def score(folder: Path, runner: StandIn, planned: Sequence[PlannedCell] | None = None) -> list[ScoredCell]:
    planned = planned or plan("model", [BASE], [DATASET], CONFIG)
    loader: Any = lambda: runner  # noqa: E731
    return Evaluator(loader, CellStore(folder), ProcessGroup()).score(planned, lambda *_: None)


def test_sets_of_which_an_option_begins_another_have_cells_of_their_own() -> None:
    def names(*options: str) -> list[object]:
        sample = Sample.question("f", "Which?", options[0], AnswerKind.option, (), options[:1], options)
        manifest = Manifest(name="f", image_domains=["x"], text_tasks=["y"], answer=AnswerKind.option)
        settings = EvaluationSet(manifest, [sample], lambda: [sample]).settings(MatrixConfig(datasets=["f"]))
        return [setting.answer_end for setting in settings]

    assert names("red", "red and blue") == [True, None]  # by likelihood, and as it writes
    assert names("1", "12") == [True, None]
    assert names("red", "blue") == [None, None]
    assert names("yes", "no") == [None, None]


def _named(manifests: int | None, **more: Any) -> tuple[str, int | None]:
    """The name of the cell of a set whose manifest has a cap, and the cap of its answers."""
    dataset = replace(DATASET, manifest=replace(DATASET.manifest, max_new_tokens=manifests))
    (work,) = plan("model", [BASE], [dataset], replace(CONFIG, **more))
    return work.digest, work.settings.max_new_tokens


def test_the_matrix_caps_answers_before_the_manifest_does_for_all_sets_or_for_some() -> None:
    caps = [None, 7, {"facts": 8}, {"other": 9}]
    assert [_named(None, max_new_tokens=cap)[1] for cap in caps] == [None, 7, 8, None]
    assert [_named(6, max_new_tokens=cap)[1] for cap in caps] == [6, 7, 8, 6]


def test_a_probe_has_the_cap_of_its_set() -> None:
    probe = replace(DATASET, manifest=replace(DATASET.manifest, name="facts" + PROBE_SUFFIX))
    (settings,) = probe.settings(replace(CONFIG, max_new_tokens={"facts": 8}))
    assert settings.max_new_tokens == 8


def test_caps_name_cells_by_what_they_are_wherever_they_are_given() -> None:
    plain, _ = _named(6)  # as it was before there was a cap of thoughts
    assert plain == "627cd3f10dcb832de1f74eb28e87c14b832afa9ce70ce11a10d9ed587167e8de"
    assert _named(None, max_new_tokens=6)[0] == _named(9, max_new_tokens={"facts": 6})[0] == plain
    assert len({plain, *(_named(6, reasoning=ReasoningConfig(max_tokens=n))[0] for n in (100, 200))}) == 3


def test_every_item_gets_its_own_answer_whatever_the_layout(tmp_path: Path) -> None:
    (cell,) = score(tmp_path, StandIn())
    assert cell.cell.frame["text"].tolist() == [sample.id for sample in SAMPLES]
    assert cell.cell.frame["score"].mean() == 1


def test_a_finished_matrix_loads_no_model(tmp_path: Path) -> None:
    planned = plan("model", [BASE, LATER], [DATASET], CONFIG)
    first = score(tmp_path, StandIn(), planned)

    def load() -> Any:
        raise AssertionError("the model was loaded")

    again = Evaluator(load, CellStore(tmp_path), ProcessGroup()).score(planned, lambda *_: None)
    assert [scored.cell.digest for scored in again] == [scored.cell.digest for scored in first]


def test_other_weights_never_share_a_cell(tmp_path: Path) -> None:
    score(tmp_path, StandIn(), plan("model", [BASE], [DATASET], CONFIG))
    runner = StandIn()
    score(tmp_path, runner, plan("another model", [BASE, LATER], [DATASET], CONFIG))
    assert runner.asked == [("step_000000", n) for n in range(3)] + [("step_000010", n) for n in range(3)]


def test_an_interrupted_cell_goes_on_after_its_last_batch(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path, StandIn(fails_after=2))
    runner = StandIn()
    (cell,) = score(tmp_path, runner)
    assert runner.asked == [("step_000000", 2)]
    assert cell.cell.frame["text"].tolist() == [sample.id for sample in SAMPLES]


def test_batches_of_another_layout_are_asked_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path, StandIn(fails_after=2))
    runner = StandIn(layout=[[0, 3, 5], [6, 2, 1], [4]])
    (cell,) = score(tmp_path, runner)
    assert runner.asked == [("step_000000", 1), ("step_000000", 2)]
    assert cell.cell.frame["text"].tolist() == [sample.id for sample in SAMPLES]


def test_a_batch_beyond_the_layout_is_ignored(tmp_path: Path) -> None:
    (work,) = plan("model", [BASE], [DATASET], CONFIG)
    journal = Journal(CellStore(tmp_path).partial(work.digest), 0)
    journal.add(40, Entry("x", 0.1, [Prediction(text="?")]))
    (cell,) = score(tmp_path, StandIn())
    assert len(cell.cell.frame) == len(SAMPLES)


def test_a_cell_that_another_command_makes_is_left_for_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan("model", [BASE, LATER], [DATASET], CONFIG)
    store, runner = CellStore(tmp_path), StandIn()
    path = store.path(planned[0].digest).with_suffix(".lock")
    path.parent.mkdir(parents=True)
    other = FileLock(path)
    other.acquire()
    monkeypatch.setattr(evaluate, "_LOCK_WAIT_S", 0.05)
    use_checkpoint = runner.use_checkpoint

    def release_later(checkpoint: Checkpoint) -> None:
        use_checkpoint(checkpoint)
        if checkpoint is LATER:
            other.release()

    monkeypatch.setattr(runner, "use_checkpoint", release_later)
    cells = score(tmp_path, runner, planned)
    assert [name for name, _ in runner.asked] == ["step_000010"] * 3 + ["step_000000"] * 3
    assert [scored.work.checkpoint.step for scored in cells] == [0, 10]
