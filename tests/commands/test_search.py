"""A search without training: a stand-in measures points by a formula, and is killed wherever it may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forgetbench import compose
from forgetbench.commands import search as command
from forgetbench.commands.search.halving import Halving
from forgetbench.commands.search.objectives import Objectives, ObjectiveSets, Value, choose_sets
from forgetbench.commands.search.study import FILE, Point, Rung, pareto_points
from forgetbench.commands.search.trial import RungResult
from forgetbench.compose.checks.search import search_problems
from forgetbench.config import SweepConfig
from forgetbench.config.space import Dimension, read_space
from forgetbench.core.errors import UserError
from forgetbench.data.catalogue import Catalogue
from forgetbench.evaluation.sets import count_unscored, load_sets
from forgetbench.training.schedule import first_steps

pytest.importorskip("optuna")

SPACE = {"recipe.lr": {"log": [1e-4, 1e-2]}, "recipe.steps": {"choice": [16, 32]}}
OVERRIDES = [
    "sweep=search", "name=s", "search.steps=300", "search.generation=4", "search.items=50", "matrix.limit=300",
    "matrix.datasets=[fashion_naming,fashion_yesno,digits_naming]",
    "search.space={recipe: null, recipe.parts: null, method: null, recipe.steps: {choice: [16,32]}}",
]  # fmt: skip


@dataclass
class StandIn:
    """Points that are measured by a formula of their rate and steps; it keeps what it trained."""

    config: SweepConfig
    space: tuple[Dimension, ...]
    corners: list[SweepConfig]
    trained: dict[str, int] = field(default_factory=dict)
    launches: list[list[str]] = field(default_factory=list)
    fails: Callable[[str], bool] = lambda _: False
    guard_stops: Callable[[str], bool] = lambda _: False
    refuses: Callable[[str], bool] = lambda _: False

    def check(self, point: Sequence[str]) -> tuple[str, SweepConfig]:
        name = "--".join(point).replace("=", "-")
        if self.refuses(name):
            raise UserError(f"{name} cannot run")
        given = dict(word.split("=") for word in point)
        return name, replace(self.config, recipe=replace(self.config.recipe, steps=int(given["recipe.steps"])))

    def launch(self, points: Sequence[Sequence[str]], task: Any) -> list[tuple[Any, str]]:
        self.launches.append([" ".join(point) for point in points])
        assert isinstance(task, partial)
        return [self._do(point, task) for point in points]

    def _do(self, point: Sequence[str], task: partial[Any]) -> tuple[Any, str]:
        name, config = self.check(point)
        rate = float(dict(word.split("=") for word in point)["recipe.lr"])
        if "share" not in task.keywords:
            return measured(rate, 0.5), ""
        stop = first_steps(config.recipe.steps, task.keywords["share"])
        assert stop >= self.trained.get(name, 0)
        self.trained[name] = stop
        if self.fails(name):
            return None, "RuntimeError: the loss is no number"
        kept = stop - 1 if self.guard_stops(name) else stop
        return RungResult(Rung(kept, measured(rate, stop / 32)), stop), ""


def measured(rate: float, share: float) -> Objectives:
    """The higher the rate and the longer the training, the more is learned, and the more is lost."""
    learned, lost = 0.3 * share * rate**0.2, 10 * share * rate
    return Objectives(Value(0.4 + learned), 0.4, Value(-lost), {"ood_text-id_image": Value(-lost)})


@pytest.fixture(scope="module")
def config() -> SweepConfig:
    return compose.compose(SweepConfig, OVERRIDES)


@pytest.fixture(scope="module")
def sets(config: SweepConfig) -> ObjectiveSets:
    return choose_sets(config, [config], Catalogue([]), count_unscored)


@pytest.fixture
def outcomes(sets: ObjectiveSets, monkeypatch: pytest.MonkeyPatch) -> list[list[Point]]:
    """The points of every search that came to its end."""
    kept: list[list[Point]] = []
    monkeypatch.setattr(command, "choose_sets", lambda *_: sets)
    monkeypatch.setattr(command, "trained_steps", lambda _: 3)
    monkeypatch.setattr(command, "write_outcome", lambda *given: kept.append(given[3].points()))
    return kept


def stand_in(config: SweepConfig, **changed: Any) -> StandIn:
    search = replace(config.search, **{key: changed.pop(key) for key in list(changed) if hasattr(config.search, key)})
    config = replace(config, search=search)
    return StandIn(config, read_space(SPACE), [config], **changed)


def test_a_search_halves_its_points_and_spends_no_more_than_its_budget(
    config: SweepConfig, outcomes: list[list[Point]], tmp_path: Path
) -> None:
    points = stand_in(config)
    command.search(points, tmp_path)
    [whole] = outcomes
    first = [point for point in whole if point.generation == 0]
    ends = [point.end.how for point in first if point.end]
    assert sorted(ends) == ["complete", "stopped", "stopped", "stopped"]
    assert [len(launch) for launch in points.launches[:3]] == [4, 2, 1]
    assert sorted(len(point.rungs) for point in first) == [1, 1, 2, 3]
    assert [point.trained for point in whole] == [points.trained.get(point.folder, 0) for point in whole]
    assert sum(points.trained.values()) <= 300
    assert Halving([0.25, 0.5], 2).max_steps([16]) > 300 - sum(points.trained.values())
    front = pareto_points(whole)
    assert front
    assert all(point.is_complete and point.test for point in front)
    assert points.launches[-1] == [" ".join(point.overrides) for point in front]
    assert not any(point.test for point in whole if point not in front)


def test_a_search_that_is_killed_anywhere_ends_with_the_same_points(
    config: SweepConfig, outcomes: list[list[Point]], tmp_path: Path
) -> None:
    command.search(stand_in(config), tmp_path / "whole")
    log = (tmp_path / "whole" / FILE).read_bytes()
    lines = log.splitlines(keepends=True)
    for number, cut in enumerate(range(1, len(lines), max(1, len(lines) // 9))):
        folder = tmp_path / f"cut{number}"
        folder.mkdir()
        half = lines[cut][: len(lines[cut]) // 2] if number % 2 else b""
        (folder / FILE).write_bytes(b"".join(lines[:cut]) + half)
        command.search(stand_in(config), folder)
        drawn = [replace(point, trial=0) for point in outcomes[-1]]
        assert drawn == [replace(point, trial=0) for point in outcomes[0]], f"line {cut} of {len(lines)}"
    assert number > 7


def test_a_search_that_was_finished_launches_nothing_and_a_larger_budget_goes_on_with_it(
    config: SweepConfig, outcomes: list[list[Point]], tmp_path: Path
) -> None:
    command.search(stand_in(config), tmp_path)
    again = stand_in(config)
    command.search(again, tmp_path)
    assert (again.launches, outcomes[1]) == ([], outcomes[0])
    command.search(stand_in(config, steps=400), tmp_path)
    more = outcomes[2]
    assert [point.overrides for point in more[: len(outcomes[0])]] == [point.overrides for point in outcomes[0]]
    assert sum(point.trained for point in more) > sum(point.trained for point in outcomes[0])


def test_a_folder_of_a_search_with_other_settings_is_refused(
    config: SweepConfig, outcomes: list[list[Point]], tmp_path: Path
) -> None:
    command.search(stand_in(config, steps=100), tmp_path)
    with pytest.raises(UserError, match=r"holds a search with other settings: search.eta, search.seed\. .*its budget"):
        command.search(stand_in(config, steps=100, seed=1, eta=3.0), tmp_path)
    assert len(outcomes) == 1


def test_points_that_fail_cost_their_steps_and_the_others_go_on(
    config: SweepConfig, outcomes: list[list[Point]], tmp_path: Path
) -> None:
    bad = stand_in(config, steps=120)
    bad.fails = lambda name: name == bad.launches[0][0].replace(" ", "--").replace("=", "-")
    command.search(bad, tmp_path)
    failed = outcomes[0][0]
    assert failed.end is not None
    assert (failed.end.how, failed.end.why) == ("failed", "RuntimeError: the loss is no number")
    assert failed.trained == 3
    assert [len(launch) for launch in bad.launches[:3]] == [4, 2, 1]
    with pytest.raises(UserError, match=r"No point of a generation could be trained\. RuntimeError: the loss"):
        command.search(stand_in(config, fails=lambda _: True), tmp_path / "all")


def test_a_point_that_its_guard_stops_goes_no_further(
    config: SweepConfig, outcomes: list[list[Point]], tmp_path: Path
) -> None:
    command.search(stand_in(config, steps=120, guard_stops=lambda name: "steps-32" in name), tmp_path)
    begun = [point for point in outcomes[0] if point.rungs]
    long = [point for point in begun if point.steps == 32]
    assert len(long) > 1
    assert {point.end.how for point in long if point.end} == {"over budget"}
    assert {len(point.rungs) for point in long} == {1}
    assert "complete" in {point.end.how for point in begun if point.end}


def test_a_point_that_cannot_run_is_not_begun_and_a_space_of_such_points_is_refused(
    config: SweepConfig, outcomes: list[list[Point]], tmp_path: Path
) -> None:
    command.search(stand_in(config, steps=120, refuses=lambda name: "steps-16" in name), tmp_path)
    ends = {point.end.how for point in outcomes[0] if point.end and not point.rungs}
    assert "refused" in ends
    assert {point.steps for point in outcomes[0] if point.rungs} == {32}
    with pytest.raises(UserError, match=r"search.space: no point of a generation can run\. .* cannot run"):
        command.search(stand_in(config, refuses=lambda _: True), tmp_path / "all")


def test_a_space_of_few_points_is_tried_once_and_the_search_ends(
    config: SweepConfig, outcomes: list[list[Point]], tmp_path: Path
) -> None:
    points = stand_in(config, steps=10_000)
    points.space = read_space({"recipe.lr": {"choice": [1e-3, 1e-2]}, "recipe.steps": {"choice": [16, 32]}})
    command.search(points, tmp_path)
    trained = [point for point in outcomes[0] if point.trained]
    assert len(trained) == len({point.overrides for point in trained}) == len(points.trained)


def test_hours_end_a_search_between_generations(
    config: SweepConfig, outcomes: list[list[Point]], tmp_path: Path
) -> None:
    command.search(stand_in(config, steps=None, hours=1e-9), tmp_path)
    assert {point.generation for point in outcomes[0]} == {0}
    assert all(point.end for point in outcomes[0])


def test_what_a_generation_costs_at_most_is_what_its_longest_points_would() -> None:
    # 4 points to a quarter (4 + 4 + 8 + 8), the two longest to the half (8 + 8), one of these to the end (16).
    assert Halving([0.25, 0.5], 2).max_steps([16, 16, 32, 32]) == 24 + 16 + 16
    assert Halving([], 2).max_steps([16, 32]) == 48


def test_validation_items_are_those_that_the_test_leaves_out(config: SweepConfig, sets: ObjectiveSets) -> None:
    catalogue = Catalogue([])
    validation, test = sets.validation(config, 4), sets.test(config, 4)
    assert sets.targets == {"fashion_naming": "fashion_naming_validation"}
    assert set(sets.others.values()) == {"fashion_yesno", "digits_naming"}
    assert test.datasets == ["fashion_naming", "fashion_yesno", "digits_naming"]
    chosen, tested = (
        {dataset.manifest.name: dataset for dataset in load_sets(m, catalogue)} for m in (validation, test)
    )
    for name in ("fashion_yesno", "digits_naming"):
        ids = [{sample.id for sample in by_name[name].samples} for by_name in (chosen, tested)]
        shown = [{image for sample in by_name[name].samples for image in sample.images} for by_name in (chosen, tested)]
        assert len(ids[0]) == 50
        assert not ids[0] & ids[1]
        assert not shown[0] & shown[1]


def test_a_set_that_points_may_train_on_and_one_without_items_left_count_for_nothing(
    config: SweepConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = compose.compose(SweepConfig, [*OVERRIDES, "recipe.mix.data=[digits_naming:train]", "recipe.mix.ratio=0.5"])
    chosen = choose_sets(config, [config, mixed], Catalogue([]), count_unscored)
    assert set(chosen.others) == {"fashion_yesno"}
    assert "digits_naming does not count, as points may train on its task" in capsys.readouterr().err
    large = replace(config, matrix=replace(config.matrix, limit=495))
    with pytest.raises(UserError, match="no off-target set has validation items"):
        choose_sets(large, [large], Catalogue([]), count_unscored)
    assert "matrix.limit=495 leaves 5 of its items" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("search.steps=null", r"search.steps .*: no budget; give search.steps="),
        ("search.steps=0", "search.steps .*: 0 is too small"),
        ("search.hours=0", "search.hours .*: 0.0 is no time"),
        ("search.generation=1", "search.generation .*: 1 leaves nothing to choose from"),
        ("search.rungs=[0.5,0.25]", "search.rungs .*no ascending shares"),
        ("search.eta=1", "search.eta .*: 1.0 stops no point"),
        ("search.items=0", "search.items .*: 0 is too small"),
        ("search.reference_loss=0", "search.reference_loss .*no loss"),
        ("search.validation={emoji_count: fashion_yesno}", "search.validation .*: 'emoji_count' is not scored"),
        ("matrix.limit=null", "matrix.limit .*: all items of fashion_yesno are tested"),
        ("matrix.datasets=[fashion_yesno]", "matrix.datasets .*: lacks the target fashion_naming"),
        ("matrix.skip={digits_naming: 3}", "matrix.skip .*: a search keeps its validation items apart itself"),
        (
            "search.space={recipe.lr: {log: [1, 2, 3]}}",
            r"search.space .*: search.space.recipe.lr: \[1,2,3\] is no pair",
        ),
        ("search.space={hydra.run.dir: {choice: [a, b]}}", "search.space .*: hydra.run.dir makes no other training"),
        ("search.space={threads: {choice: [1, 2]}}", "search.space .*: threads makes no other training"),
        ("guard.max_loss=5", "guard.datasets .*: the guard of a search would stop points by items that test them"),
        ("data=five_tasks_a", "data.stages .*: a search takes one target"),
        ("method=wise_ft", "method .*: wise_ft comes after training"),
        ("data.stages=[{set: fashion_naming, epochs: 1}]", "data.stages.0.epochs .*: a search counts steps"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(override: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        compose.compose(SweepConfig, [*OVERRIDES, override])


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["recipe.lr=1e-3"], r"recipe.lr=1e-3: recipe.lr is searched; .* search.space='\{recipe.lr: null\}'"),
        (["seed=0,1"], "A search chooses its points itself"),
        (["search.space={recipe.lr: {log: [-1.0, 2.0]}}"], "has no logarithm"),
        (
            ["search.space={recipe.parts: {choice: [[language],[tongue]]}}"],
            r"Point .*parts=\[tongue\].*:\nrecipe.parts",
        ),
        (["search.space={recipe.rate: {log: [0.1, 1]}}"], "recipe.rate"),
    ],
)
def test_a_space_whose_points_cannot_run_is_refused_before_anything_is_written(
    overrides: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=named):
        compose.sweep([*OVERRIDES, *overrides], lambda *_: None)
    assert list(tmp_path.iterdir()) == []


def test_a_search_without_optuna_says_what_to_install(config: SweepConfig) -> None:
    [problem] = search_problems(config, Catalogue([]), find=lambda _: None)
    assert problem.message == "Optuna is not installed: pip install 'forgetbench[search]'."


def test_a_budget_without_a_space_is_refused() -> None:
    with pytest.raises(UserError, match=r"search.steps .*: nothing is searched; choose sweep=search"):
        compose.compose(SweepConfig, ["search.steps=100"])
