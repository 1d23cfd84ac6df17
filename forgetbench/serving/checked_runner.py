"""A server whose log-probabilities are compared with those of transformers before it scores."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forgetbench.config import Engine, EngineConfig, MatrixConfig, Reload
from forgetbench.core.errors import UserError
from forgetbench.evaluation.inference import ModelRunner
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.serving.comparison import (
    Case,
    ComparisonResult,
    Expected,
    LogProbabilities,
    compare_logprobs,
    comparison_layout,
    expected_logprobs,
    read_result,
    store_result,
)
from forgetbench.serving.question import MismatchError
from forgetbench.serving.runner import CONVERSATIONS, ServerRunner


class Comparisons:
    """The comparisons of one command: cases, expected values and results, also stored results of earlier commands."""

    def __init__(
        self, cases: Sequence[Case], engine: EngineConfig, label: str, model: str, matrix: MatrixConfig, folder: Path
    ) -> None:
        """Read the stored results.

        Args:
            cases: to compare.
            engine: has the number of items and the tolerance.
            label: of the engine, with its version.
            model: digest of the base.
            matrix: how it is scored.
            folder: of stored results.
        """
        self._engine, self._label, self._matrix = engine, label, matrix
        self._cases = {case.name: case for case in cases}
        self._files: dict[tuple[str, str], Path] = {}
        # A result is reusable only for a fresh vLLM: other servers may have changed their weights since.
        if engine.name is Engine.vllm and engine.reload is Reload.fresh:
            how = [label, engine.args or {}, engine.adapters]
            self._files = {case.name: folder / f"{case.key(how, model, matrix)}.json" for case in cases}
        stored = {name: read_result(path) for name, path in self._files.items()}
        self._results = {name: result for name, result in stored.items() if result}
        self._pending = {name for name in self._cases if not self._is_settled(name)}
        self._expected: dict[tuple[str, str], Expected] = {}

    @property
    def has_pending(self) -> bool:
        """Whether a case has no stored result within tolerance."""
        return bool(self._pending)

    @property
    def used_conversations(self) -> bool:
        """Whether a stored result was made with conversations, because token ids do not work with this engine."""
        return any(result.asked_by == CONVERSATIONS for result in self._results.values())

    def ask(self, runner: ModelRunner) -> None:
        """Compute the expected values of all pending cases with transformers."""
        names = [name for name in self._cases if name in self._pending]
        self._expected = {
            name: expected_logprobs(runner, self._cases[name], self._engine.check_items) for name in names
        }

    def compare_again(self) -> None:
        """Mark every case as pending: weights were replaced in place."""
        self._pending = set(self._expected)

    def due_checkpoints(self, checkpoint: Checkpoint, served_together: Container[str]) -> list[Checkpoint]:
        """The checkpoints to compare before a checkpoint is scored.

        Args:
            checkpoint: to score.
            served_together: names of the checkpoints that are served at once; if `checkpoint` is among them, all of
                them are compared first.
        """
        together = served_together if checkpoint.name in served_together else {checkpoint.name}
        checkpoints = (
            self._cases[name].checkpoint for name in self._cases if name in self._pending and name[0] in together
        )
        return list({candidate.name: candidate for candidate in checkpoints}.values())

    def compare(self, runner: ServerRunner, checkpoint: Checkpoint) -> ComparisonResult | None:
        """Compare the pending cases of a checkpoint with a server.

        Returns:
            The first result beyond the tolerance; None if there is none.
        """
        for case in [self._cases[name] for name in self._cases if name in self._pending and name[0] == checkpoint.name]:
            wanted, given = self._log_probabilities(runner, case)
            result = compare_logprobs(
                case,
                self._label,
                self._matrix.precision.value,
                wanted,
                given,
                runner.pop_prompt_checks(),
                runner.asked_by,
            )
            self._results[case.name] = result
            if not result.fits(self._engine.tolerance):
                return result
            self._pending.discard(case.name)
            if case.name in self._files:
                store_result(self._files[case.name], result)
        return None

    def _log_probabilities(self, runner: ServerRunner, case: Case) -> tuple[LogProbabilities, LogProbabilities]:
        """Log-probabilities of a case: from transformers, and from the server."""
        wanted, n, dataset = self._expected[case.name], self._engine.check_items, case.dataset.manifest.name
        whole = comparison_layout(runner, case.dataset, n)
        if case.scores_options or runner.can_score(whole):
            return wanted.whole, runner.likelihoods(whole, dataset)
        return wanted.first, runner.available_likelihoods(
            comparison_layout(runner, case.dataset, n, first=True), dataset
        )

    def refusal(self, result: ComparisonResult) -> UserError:
        """The error for an engine with other log-probabilities."""
        what = f"{result.dataset}, {result.checkpoint}: {result.engine}"
        if not result.items:
            return UserError(
                f"{what} tells no log-probability that could be held against transformers', so there is no saying "
                "whether it runs the same model. Take vLLM (engine=vllm)."
            )
        return UserError(
            f"{what} gives log-probabilities up to {result.largest_difference:.3g} from those of transformers (item "
            f"'{result.item}'; {result.log_probabilities} compared), and engine.tolerance is "
            f"{self._engine.tolerance:g}. Nothing of it was stored. Does it serve the same weights at "
            f"matrix.precision={result.precision}, with every module of the adapter? engine.adapters=false merges "
            "adapters, and a larger engine.tolerance allows more (docs/serving.md)."
        )

    def rows(self) -> list[dict[str, Any]]:
        """Rows of engine.csv; empty if nothing was compared."""
        more = {"tolerance": self._engine.tolerance, "reload": self._engine.reload.value}
        return [asdict(result) | more for result in self._results.values()]

    def _is_settled(self, name: tuple[str, str]) -> bool:
        """Whether a stored result has enough items and is within tolerance."""
        result, enough = self._results.get(name), self._cases[name].count(self._engine.check_items)
        return result is not None and result.fits(self._engine.tolerance) and result.items >= enough


class CheckedRunner(ServerRunner):
    """A server that is compared with transformers at each checkpoint before it scores that checkpoint."""

    def begin(
        self, comparisons: Comparisons, served_together: Container[str], restart: Callable[[Checkpoint], str] | None
    ) -> None:
        """Set the comparisons.

        Args:
            comparisons: of this command.
            served_together: names of the checkpoints that are served at once.
            restart: restarts the server after weights were replaced in place; None if they never are.
        """
        self._comparisons, self._served_together, self._restart = comparisons, served_together, restart
        self._swaps = 0
        self._prefers_conversations = comparisons.used_conversations

    def use_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Ask this checkpoint from now on.

        Raises:
            UserError: the server reads other prompts, or gives other log-probabilities than transformers.
        """
        super().use_checkpoint(checkpoint)
        if self._server.swaps != self._swaps:
            self._swaps = self._server.swaps
            self._comparisons.compare_again()
        for due in self._comparisons.due_checkpoints(checkpoint, self._served_together):
            super().use_checkpoint(due)
            self._compare_or_refuse(due)
            super().use_checkpoint(checkpoint)

    def _compare_or_refuse(self, checkpoint: Checkpoint) -> None:
        bad = self._compare(checkpoint)
        if bad and self._restart:  # weights that were replaced in place may be stale
            self._name = self._restart(checkpoint)
            bad = self._compare(checkpoint)
        if bad:
            raise self._comparisons.refusal(bad)

    def _compare(self, checkpoint: Checkpoint) -> ComparisonResult | None:
        try:
            return self._comparisons.compare(self, checkpoint)
        except MismatchError as by_ids:
            if not self.use_conversations():
                raise
            try:
                return self._comparisons.compare(self, checkpoint)
            except MismatchError:
                raise by_ids from None
