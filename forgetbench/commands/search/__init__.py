"""`forgetbench sweep sweep=search`: let Optuna choose recipes by two objectives, and test the best trade-offs.

A generation of points is drawn, trained and halved at every rung; then the next one is drawn from what was learned. It
goes on until the budget cannot pay another generation. Test items are scored last, of the Pareto front alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from forgetbench.commands.search.halving import Halving
from forgetbench.commands.search.objectives import ObjectiveSets, choose_sets
from forgetbench.commands.search.outcome import write_outcome
from forgetbench.commands.search.study import FILE, End, Point, Study, pareto_points
from forgetbench.commands.search.trial import RungResult, final_test, total_steps, train_and_measure, trained_steps
from forgetbench.config import FinetuneConfig, SweepConfig
from forgetbench.config.result import deciding
from forgetbench.config.space import Dimension
from forgetbench.core.errors import UserError
from forgetbench.data.catalogue import Catalogue
from forgetbench.runs.run import settings_of
from forgetbench.runs.scored import matrix_settings
from forgetbench.statistics.pareto import select_survivors
from forgetbench.terminal.console import say
from forgetbench.training.schedule import first_steps

_FREE = ("steps", "hours")
"""Settings of a search that may change while it goes on."""
_DRAWS = 4
"""Times the size of a generation; a space without so many different points is all tried."""


class PointRunner(Protocol):
    """Checks and runs the points of a search; `compose` provides it."""

    config: SweepConfig
    space: tuple[Dimension, ...]
    corners: list[SweepConfig]

    def check(self, point: Sequence[str]) -> tuple[str, SweepConfig]:
        """A point's folder name and config; raises UserError if it cannot run."""

    def launch(self, points: Sequence[Sequence[str]], task: Any) -> list[tuple[Any, str]]:
        """Run a task for each point: its result, or why it failed."""


def search(points: PointRunner, folder: Path) -> None:
    """Search, and test what was found.

    Args:
        points: to check and run them with.
        folder: the sweep's.

    Raises:
        UserError: nothing can be chosen by, the folder holds another search, or no point of a generation ran.
    """
    from forgetbench.evaluation.sets import count_unscored

    config = points.config
    sets = choose_sets(config, points.corners, Catalogue(config.manifests), count_unscored)
    study = Study(folder / FILE, _settings(config, sets), config.search.seed, config.search.generation)
    running = _Search(points, folder, study, sets)
    while running.draw():
        for rung in range(len(running.halving.shares)):
            running.train_to_rung(rung)
    running.test_front()
    write_outcome(folder, config, points.space, study, sets)


def _settings(config: SweepConfig, sets: ObjectiveSets) -> dict[str, Any]:
    """The settings that decide which points are drawn and what is measured."""
    search_settings = {key: value for key, value in vars(config.search).items() if key not in _FREE}
    training = deciding(FinetuneConfig, settings_of(config))
    matrix = {key: value for key, value in matrix_settings(config.matrix).items() if key != "representation"}
    counted = {"targets": dict(sets.targets), "others": dict(sets.others), "skip": dict(sets.skip)}
    return {
        "search": {**search_settings, "retention": str(search_settings["retention"])},
        "training": training,
        "matrix": matrix,
        **counted,
    }


class _Search:
    """A running search; its state is in the study file."""

    def __init__(self, points: PointRunner, folder: Path, study: Study, sets: ObjectiveSets) -> None:
        self._points, self._folder, self._study, self._sets = points, folder, study, sets
        self._search = points.config.search
        self.halving = Halving(self._search.rungs, self._search.eta)

    def draw(self) -> bool:
        """Draw the next generation, or take up the one under way; False if the budget is spent."""
        study = self._study
        if any(point.end is None for point in study.points() if point.generation < study.n_generations):
            return True
        if not self._generation(study.n_generations) and (self._hours_spent() or self._steps_spent()):
            return False
        while self._needs_point():
            self._draw_point()
        study.close_generation()
        drawn = self._generation(study.n_generations - 1)
        begun = [point for point in drawn if point.end is None]
        if begun:
            say(f"search: generation {study.n_generations}, {len(begun)} points; {self._spent()} steps so far.")
        elif {point.end.how for point in drawn if point.end} == {"refused"}:
            raise UserError(f"search.space: no point of a generation can run. {_why(drawn[0])}")
        return bool(begun)

    def train_to_rung(self, rung: int) -> None:
        """Train the points of the last generation up to a rung, and stop the worse part of them there."""
        generation = self._study.n_generations - 1
        waiting = [point for point in self._generation(generation) if point.end is None and len(point.rungs) <= rung]
        if waiting:
            self._launch(waiting, rung)
        scored = [point for point in self._generation(generation) if len(point.rungs) > rung]
        within_budget = [point for point in scored if not self._ended_before(point, rung)]
        for point in scored:
            if self._ended_before(point, rung):
                self._finish(point, End("over budget", f"its guard stopped it after step {point.trained}"))
        if rung == len(self._search.rungs):
            for point in within_budget:
                self._finish(point, End("complete"))
            return
        pairs = [point.rungs[rung].objectives.pair for point in within_budget]
        reference = (
            (within_budget[0].rungs[rung].objectives.target_base, -self._search.reference_loss)
            if within_budget
            else (0.0, 0.0)
        )
        better = {
            within_budget[place].number
            for place in select_survivors(pairs, self.halving.n_survivors(len(within_budget)), reference)
        }
        for point in within_budget:
            if point.number not in better:
                self._finish(point, End("stopped", f"after {self._search.rungs[rung]:g} of its steps"))

    def test_front(self) -> None:
        """Score the points of the front on the test's items."""
        front = [point for point in pareto_points(self._study.points()) if point.test is None]
        if not front:
            return
        steps = {point.folder: point.rungs[-1].step for point in front}
        results = self._points.launch(
            [point.overrides for point in front], partial(final_test, steps=steps, sets=self._sets)
        )
        for point, (objectives, cause) in zip(front, results, strict=True):
            if cause:
                raise UserError(f"{self._folder / point.folder} could not be tested: {cause}")
            self._study.record_test(point, objectives)

    def _ended_before(self, point: Point, rung: int) -> bool:
        """Whether a point's run ended by itself before a rung."""
        return point.rungs[rung].step < first_steps(point.steps, self.halving.shares[rung])

    def _generation(self, number: int) -> list[Point]:
        return [point for point in self._study.points() if point.generation == number]

    def _hours_spent(self) -> bool:
        return self._search.hours is not None and self._study.seconds >= self._search.hours * 3600

    def _steps_spent(self) -> bool:
        """Whether the budget could not pay a point of the last generation, and still cannot."""
        last = self._generation(self._study.n_generations - 1)
        given_up = [point for point in last if point.end and point.end.how == "not begun"]
        return len(given_up) == len(last) > 0 and not self._can_pay([given_up[0].steps])

    def _spent(self) -> int:
        return sum(point.trained for point in self._study.points())

    def _needs_point(self) -> bool:
        drawn = self._generation(self._study.n_generations)
        ends = {point.end.how for point in drawn if point.end}
        begun = [point for point in drawn if point.end is None]
        size = self._search.generation
        return len(begun) < size and "not begun" not in ends and len(drawn) < _DRAWS * size

    def _draw_point(self) -> None:
        study, generation = self._study, self._study.n_generations
        earlier_points = study.points()
        begun = [point.steps for point in earlier_points if point.generation == generation and point.end is None]
        with study.draft_point(self._points.space) as draft:
            folder, steps, end = "", 0, None
            try:
                folder, config = self._points.check(draft.overrides)
                steps = total_steps(config)
            except UserError as error:
                end = End("refused", str(error))
            if folder and folder in {point.folder for point in earlier_points}:
                end = End("repeated")
            elif folder and not self._can_pay([*begun, steps]):
                end = End("not begun", "the budget is spent")
            draft.save(generation, folder, steps, end)

    def _can_pay(self, totals: Sequence[int]) -> bool:
        """Whether the budget can pay a generation of points with these steps, however many go on."""
        return self._search.steps is None or self._spent() + self.halving.max_steps(totals) <= self._search.steps

    def _launch(self, waiting: Sequence[Point], rung: int) -> None:
        start = time.monotonic()
        task = partial(train_and_measure, share=self.halving.shares[rung], sets=self._sets)
        results = self._points.launch([point.overrides for point in waiting], task)
        self._study.add_seconds(time.monotonic() - start)
        for point, (result, cause) in zip(waiting, results, strict=True):
            if cause:
                trained = trained_steps(self._folder / point.folder)
                self._study.finish(point, End("failed", cause), trained)
                continue
            assert isinstance(result, RungResult)
            self._study.record(point, rung, result.rung, result.trained)
        if rung == 0 and all(cause for _, cause in results):
            raise UserError(f"No point of a generation could be trained. {results[0][1]}")

    def _finish(self, point: Point, end: End) -> None:
        """End a point that has not ended, and delete its resume point."""
        if point.end is None:
            from forgetbench.models.checkpoint import drop_resume

            self._study.finish(point, end)
            drop_resume(self._folder / point.folder)


def _why(point: Point) -> str:
    return point.end.why if point.end else ""
