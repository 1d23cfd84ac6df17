"""A server whose answers count once they were held against transformers'."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forgetbench.config import Engine, EngineConfig, MatrixConfig, Reload
from forgetbench.core.errors import UserError
from forgetbench.evaluation.inference import ModelRunner
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.serving.checks import (
    Case,
    Expected,
    Finding,
    LogProbabilities,
    compared,
    expected,
    keep_finding,
    layout_of,
    read_finding,
)
from forgetbench.serving.question import MismatchError
from forgetbench.serving.runner import CONVERSATIONS, ServerRunner


class Comparisons:
    """What is compared in one command, what transformers gave, and what was found, now or before."""

    def __init__(
        self, cases: Sequence[Case], engine: EngineConfig, label: str, model: str, matrix: MatrixConfig, folder: Path
    ) -> None:
        """Read what was found before.

        Args:
            cases: what is to be compared.
            engine: says how many items, and how near.
            label: of the engine, with its version.
            model: digest of the base.
            matrix: how it is scored.
            folder: where findings are kept.
        """
        self._engine, self._label, self._matrix = engine, label, matrix
        self._cases = {case.name: case for case in cases}
        self._files: dict[tuple[str, str], Path] = {}
        # Of somebody else's server nobody knows which weights it has by now, and what a swap left, of that swap alone.
        if engine.name is Engine.vllm and engine.reload is Reload.fresh:
            how = [label, engine.args or {}, engine.adapters]
            self._files = {case.name: folder / f"{case.key(how, model, matrix)}.json" for case in cases}
        kept = {name: read_finding(path) for name, path in self._files.items()}
        self._found = {name: one for name, one in kept.items() if one}
        self._open = {name for name in self._cases if not self._suffices(name)}
        self._wanted: dict[tuple[str, str], Expected] = {}

    @property
    def is_open(self) -> bool:
        """Whether anything was not found near enough before."""
        return bool(self._open)

    @property
    def by_conversations(self) -> bool:
        """Whether the engine was found to take no token ids, or to read them in another way."""
        return any(one.asked_by == CONVERSATIONS for one in self._found.values())

    def ask(self, runner: ModelRunner) -> None:
        """Ask transformers whatever is open."""
        names = [name for name in self._cases if name in self._open]
        self._wanted = {name: expected(runner, self._cases[name], self._engine.check_items) for name in names}

    def reopen(self) -> None:
        """Compare all of it again: weights were replaced in place."""
        self._open = set(self._wanted)

    def due(self, checkpoint: Checkpoint, beside: Container[str]) -> list[Checkpoint]:
        """The checkpoints to compare before one of them is scored.

        Args:
            checkpoint: the one.
            beside: names of those that are served at once; if it is one of them, all of them are compared first.
        """
        together = beside if checkpoint.name in beside else {checkpoint.name}
        found = (self._cases[name].checkpoint for name in self._cases if name in self._open and name[0] in together)
        return list({one.name: one for one in found}.values())

    def compare(self, runner: ServerRunner, checkpoint: Checkpoint) -> Finding | None:
        """Ask a server what is open of a checkpoint.

        Returns:
            The first that is not near enough.
        """
        for case in [self._cases[name] for name in self._cases if name in self._open and name[0] == checkpoint.name]:
            wanted, given = self._given(runner, case)
            found = compared(
                case,
                self._label,
                self._matrix.precision.value,
                wanted,
                given,
                runner.compared(),
                runner.asked_by,
            )
            self._found[case.name] = found
            if not found.fits(self._engine.tolerance):
                return found
            self._open.discard(case.name)
            if case.name in self._files:
                keep_finding(self._files[case.name], found)
        return None

    def _given(self, runner: ServerRunner, case: Case) -> tuple[LogProbabilities, LogProbabilities]:
        """What transformers gave, and what the server gives."""
        wanted, n, dataset = self._wanted[case.name], self._engine.check_items, case.dataset.manifest.name
        whole = layout_of(runner, case.dataset, n)
        if case.scores_options or runner.tells(whole):
            return wanted.whole, runner.likelihoods(whole, dataset)
        return wanted.first, runner.told(layout_of(runner, case.dataset, n, first=True), dataset)

    def refusal(self, finding: Finding) -> UserError:
        """What to say of an engine that gives other log-probabilities."""
        what = f"{finding.dataset}, {finding.checkpoint}: {finding.engine}"
        if not finding.items:
            return UserError(
                f"{what} tells no log-probability that could be held against transformers', so there is no saying "
                "whether it runs the same model. Take vLLM (engine=vllm)."
            )
        return UserError(
            f"{what} gives log-probabilities up to {finding.largest_difference:.3g} from those of transformers (item "
            f"'{finding.item}'; {finding.log_probabilities} compared), and engine.tolerance is "
            f"{self._engine.tolerance:g}. Nothing of it was stored. Does it serve the same weights at "
            f"matrix.precision={finding.precision}, with every module of the adapter? engine.adapters=false merges "
            "adapters, and a larger engine.tolerance allows more (docs/serving.md)."
        )

    def rows(self) -> list[dict[str, Any]]:
        """Rows of engine.csv; none where nothing was compared."""
        more = {"tolerance": self._engine.tolerance, "reload": self._engine.reload.value}
        return [asdict(one) | more for one in self._found.values()]

    def _suffices(self, name: tuple[str, str]) -> bool:
        """Whether what was found before is of as many items, and near enough."""
        found, enough = self._found.get(name), self._cases[name].count(self._engine.check_items)
        return found is not None and found.fits(self._engine.tolerance) and found.items >= enough


class CheckedRunner(ServerRunner):
    """A server that is compared with transformers at each checkpoint before any of it is scored."""

    def begin(
        self, comparisons: Comparisons, beside: Container[str], restart: Callable[[Checkpoint], str] | None
    ) -> None:
        """Say what is compared.

        Args:
            comparisons: of this command.
            beside: names of the checkpoints that are served at once.
            restart: starts the server anew, where weights were replaced in place; None where they never are.
        """
        self._comparisons, self._beside, self._restart = comparisons, beside, restart
        self._swaps = 0
        self._prefers_conversations = comparisons.by_conversations

    def move(self, checkpoint: Checkpoint) -> None:
        """Ask this checkpoint from now on.

        Raises:
            UserError: the server reads other prompts, or gives other log-probabilities than transformers.
        """
        super().move(checkpoint)
        if self._served.swaps != self._swaps:
            self._swaps = self._served.swaps
            self._comparisons.reopen()
        for due in self._comparisons.due(checkpoint, self._beside):
            super().move(due)
            self._settle(due)
            super().move(checkpoint)

    def _settle(self, checkpoint: Checkpoint) -> None:
        bad = self._compare(checkpoint)
        if bad and self._restart:  # weights that were read in place may be stale
            self._name = self._restart(checkpoint)
            bad = self._compare(checkpoint)
        if bad:
            raise self._comparisons.refusal(bad)

    def _compare(self, checkpoint: Checkpoint) -> Finding | None:
        try:
            return self._comparisons.compare(self, checkpoint)
        except MismatchError as by_ids:
            if not self.ask_by_conversations():
                raise
            try:
                return self._comparisons.compare(self, checkpoint)
            except MismatchError:
                raise by_ids from None
