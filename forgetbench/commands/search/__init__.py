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
from forgetbench.commands.search.objectives import Sets, choose_sets
from forgetbench.commands.search.outcome import write_outcome
from forgetbench.commands.search.study import FILE, End, Point, Study, front_of
from forgetbench.commands.search.trial import Look, final_test, look, total_steps, trained_steps
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


class Points(Protocol):
    """What `compose` gives a search."""

    config: SweepConfig
    space: tuple[Dimension, ...]
    corners: list[SweepConfig]

    def check(self, point: Sequence[str]) -> tuple[str, SweepConfig]:
        """A point's folder name and config, or why it cannot run."""

    def launch(self, points: Sequence[Sequence[str]], task: Any) -> list[tuple[Any, str]]:
        """What a task returns for each point, or why it failed."""


def search(points: Points, folder: Path) -> None:
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
            running.climb(rung)
    running.test_front()
    write_outcome(folder, config, points.space, study, sets)


def _settings(config: SweepConfig, sets: Sets) -> dict[str, Any]:
    """What decides which points are drawn, and what is measured of them."""
    own = {key: value for key, value in vars(config.search).items() if key not in _FREE}
    training = deciding(FinetuneConfig, settings_of(config))
    matrix = {key: value for key, value in matrix_settings(config.matrix).items() if key != "representation"}
    counted = {"targets": dict(sets.targets), "others": dict(sets.others), "skip": dict(sets.skip)}
    return {"search": {**own, "retention": str(own["retention"])}, "training": training, "matrix": matrix, **counted}


class _Search:
    """One search while it runs; all that it knows is in the study file."""

    def __init__(self, points: Points, folder: Path, study: Study, sets: Sets) -> None:
        self._points, self._folder, self._study, self._sets = points, folder, study, sets
        self._search = points.config.search
        self.halving = Halving(self._search.rungs, self._search.eta)

    def draw(self) -> bool:
        """Draw the next generation, or take up the one under way; False if the budget is spent."""
        study = self._study
        if any(point.end is None for point in study.points() if point.generation < study.asked):
            return True
        if not self._generation(study.asked) and (self._hours_spent() or self._steps_spent()):
            return False
        while self._wants_another():
            self._draw_point()
        study.close_generation()
        drawn = self._generation(study.asked - 1)
        begun = [point for point in drawn if point.end is None]
        if begun:
            say(f"search: generation {study.asked}, {len(begun)} points; {self._spent()} steps so far.")
        elif {point.end.how for point in drawn if point.end} == {"refused"}:
            raise UserError(f"search.space: no point of a generation can run. {_why(drawn[0])}")
        return bool(begun)

    def climb(self, rung: int) -> None:
        """Train the points of the last generation up to a rung, and let the worse part of them end there."""
        generation = self._study.asked - 1
        waiting = [one for one in self._generation(generation) if one.end is None and len(one.rungs) <= rung]
        if waiting:
            self._launch(waiting, rung)
        scored = [one for one in self._generation(generation) if len(one.rungs) > rung]
        seen = [one for one in scored if not self._is_cut(one, rung)]
        for point in scored:
            if self._is_cut(point, rung):
                self._finish(point, End("over budget", f"its guard stopped it after step {point.trained}"))
        if rung == len(self._search.rungs):
            for point in seen:
                self._finish(point, End("complete"))
            return
        pairs = [point.rungs[rung].objectives.pair for point in seen]
        reference = (seen[0].rungs[rung].objectives.target_base, -self._search.reference_loss) if seen else (0.0, 0.0)
        better = {seen[place].number for place in select_survivors(pairs, self.halving.go_on(len(seen)), reference)}
        for point in seen:
            if point.number not in better:
                self._finish(point, End("stopped", f"after {self._search.rungs[rung]:g} of its steps"))

    def test_front(self) -> None:
        """Score the points of the front on the test's items."""
        front = [point for point in front_of(self._study.points()) if point.test is None]
        if not front:
            return
        steps = {point.folder: point.rungs[-1].step for point in front}
        found = self._points.launch(
            [point.overrides for point in front], partial(final_test, steps=steps, sets=self._sets)
        )
        for point, (objectives, cause) in zip(front, found, strict=True):
            if cause:
                raise UserError(f"{self._folder / point.folder} could not be tested: {cause}")
            self._study.record_test(point, objectives)

    def _is_cut(self, point: Point, rung: int) -> bool:
        """Whether a point's run ended by itself before a rung."""
        return point.rungs[rung].step < first_steps(point.steps, self.halving.shares[rung])

    def _generation(self, number: int) -> list[Point]:
        return [point for point in self._study.points() if point.generation == number]

    def _hours_spent(self) -> bool:
        return self._search.hours is not None and self._study.seconds >= self._search.hours * 3600

    def _steps_spent(self) -> bool:
        """Whether the last generation was given up, as the budget could not pay a point of it, and still cannot."""
        last = self._generation(self._study.asked - 1)
        given_up = [point for point in last if point.end and point.end.how == "not begun"]
        return len(given_up) == len(last) > 0 and not self._can_pay([given_up[0].steps])

    def _spent(self) -> int:
        return sum(point.trained for point in self._study.points())

    def _wants_another(self) -> bool:
        drawn = self._generation(self._study.asked)
        ends = {point.end.how for point in drawn if point.end}
        begun = [point for point in drawn if point.end is None]
        size = self._search.generation
        return len(begun) < size and "not begun" not in ends and len(drawn) < _DRAWS * size

    def _draw_point(self) -> None:
        study, generation = self._study, self._study.asked
        before = study.points()
        begun = [point.steps for point in before if point.generation == generation and point.end is None]
        with study.drawn(self._points.space) as draft:
            folder, steps, end = "", 0, None
            try:
                folder, config = self._points.check(draft.overrides)
                steps = total_steps(config)
            except UserError as error:
                end = End("refused", str(error))
            if folder and folder in {point.folder for point in before}:
                end = End("repeated")
            elif folder and not self._can_pay([*begun, steps]):
                end = End("not begun", "the budget is spent")
            draft.keep(generation, folder, steps, end)

    def _can_pay(self, totals: Sequence[int]) -> bool:
        """Whether the budget has the steps of a generation, whatever becomes of its points."""
        return self._search.steps is None or self._spent() + self.halving.most_steps(totals) <= self._search.steps

    def _launch(self, waiting: Sequence[Point], rung: int) -> None:
        start = time.monotonic()
        task = partial(look, share=self.halving.shares[rung], sets=self._sets)
        found = self._points.launch([point.overrides for point in waiting], task)
        self._study.add_seconds(time.monotonic() - start)
        for point, (seen, cause) in zip(waiting, found, strict=True):
            if cause:
                trained = trained_steps(self._folder / point.folder)
                self._study.finish(point, End("failed", cause), trained)
                continue
            assert isinstance(seen, Look)
            self._study.record(point, rung, seen.rung, seen.trained)
        if rung == 0 and all(cause for _, cause in found):
            raise UserError(f"No point of a generation could be trained. {found[0][1]}")

    def _finish(self, point: Point, end: End) -> None:
        """Let a point end, if it has not; what it would go on from is not needed any more."""
        if point.end is None:
            from forgetbench.models.checkpoint import drop_resume

            self._study.finish(point, end)
            drop_resume(self._folder / point.folder)


def _why(point: Point) -> str:
    return point.end.why if point.end else ""
