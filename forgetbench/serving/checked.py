"""A server whose answers count once they were held against transformers'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from forgetbench.config import EngineConfig, MatrixConfig, Reload
from forgetbench.core.errors import UserError
from forgetbench.evaluation.inference import ModelRunner
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.serving.checks import (
    Case,
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
        self._files = {case.name: folder / f"{case.key(label, model, matrix)}.json" for case in cases}
        self._cases = {case.name: case for case in cases}
        kept = {name: read_finding(path) for name, path in self._files.items()}
        # What a swap left is known of that swap alone.
        self._found = {name: one for name, one in kept.items() if one and engine.reload is Reload.fresh}
        self._wanted: dict[tuple[str, str], LogProbabilities] = {}

    @property
    def open(self) -> list[Case]:
        """Those that were not found near enough before."""
        return [case for name, case in self._cases.items() if not self._fits(self._found.get(name))]

    @property
    def by_conversations(self) -> bool:
        """Whether the engine was found to take no token ids, or to read them in another way."""
        return any(one.asked_by == CONVERSATIONS for one in self._found.values())

    def ask(self, runner: ModelRunner) -> None:
        """Ask transformers whatever is open."""
        self._wanted = {case.name: expected(runner, case, self._engine.check_items) for case in self.open}

    def compare(self, runner: ServerRunner, checkpoint: Checkpoint) -> list[Finding]:
        """Ask a server what is open of a checkpoint.

        Returns:
            Those that are not near enough.
        """
        mine = [self._cases[name] for name in self._wanted if name[0] == checkpoint.name]
        for case in mine:
            layout = layout_of(runner, case.dataset, self._engine.check_items)
            given = runner.likelihoods(layout, case.dataset.manifest.name)
            self._found[case.name] = compared(
                case,
                self._label,
                self._matrix.precision.value,
                self._wanted[case.name],
                given,
                runner.compared(),
                runner.asked_by,
            )
        found = [self._found[case.name] for case in mine]
        for case in mine:
            if self._fits(self._found[case.name]):
                keep_finding(self._files[case.name], self._found[case.name])
        return [one for one in found if not self._fits(one)]

    def done(self, checkpoint: Checkpoint) -> None:
        """Forget what is open of a checkpoint."""
        self._wanted = {name: one for name, one in self._wanted.items() if name[0] != checkpoint.name}

    def refusal(self, finding: Finding) -> UserError:
        """What to say of an engine that gives other log-probabilities."""
        what = f"{finding.dataset}, {finding.checkpoint}: {finding.engine}"
        if finding.largest_difference is None:
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

    def table(self) -> pd.DataFrame:
        """Rows of engine.csv; none where nothing was compared."""
        rows: list[dict[str, Any]] = [asdict(one) for one in self._found.values()]
        return pd.DataFrame(rows).assign(tolerance=self._engine.tolerance, reload=self._engine.reload.value)

    def _fits(self, finding: Finding | None) -> bool:
        return finding is not None and finding.fits(self._engine.tolerance)


class CheckedRunner(ServerRunner):
    """A server that is compared with transformers at each checkpoint before any of it is scored."""

    def begin(self, comparisons: Comparisons, restart: Callable[[Checkpoint], None] | None) -> None:
        """Say what is compared.

        Args:
            comparisons: of this command.
            restart: starts the server anew, where weights were replaced in place; None where they never are.
        """
        self._comparisons, self._restart = comparisons, restart
        self._prefers_conversations = comparisons.by_conversations

    def move(self, checkpoint: Checkpoint) -> None:
        """Ask this checkpoint from now on.

        Raises:
            UserError: the server reads other prompts, or gives other log-probabilities than transformers.
        """
        super().move(checkpoint)
        bad = self._compare(checkpoint)
        if bad and self._restart:  # weights that were read in place may be stale
            self._restart(checkpoint)
            super().move(checkpoint)  # a fresh server may name it otherwise
            bad = self._compare(checkpoint)
        if bad:
            raise self._comparisons.refusal(bad[0])
        self._comparisons.done(checkpoint)

    def _compare(self, checkpoint: Checkpoint) -> list[Finding]:
        try:
            return self._comparisons.compare(self, checkpoint)
        except MismatchError as by_ids:
            if not self.ask_by_conversations():
                raise
            try:
                return self._comparisons.compare(self, checkpoint)
            except UserError:
                raise by_ids from None
