"""Compare the log-probabilities of an engine with those of transformers, and store the largest difference."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forgetbench.config import MatrixConfig
from forgetbench.core.files import write_json
from forgetbench.core.records import Decoding
from forgetbench.core.store import json_digest
from forgetbench.evaluation.batches import BatchedSet
from forgetbench.evaluation.inference import ModelRunner
from forgetbench.evaluation.runner import Runner
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.evaluation.settings import Settings
from forgetbench.models.checkpoint import Checkpoint

_MAX_ANSWER_TOKENS = 8
"""Tokens of an accepted answer that are compared if a dataset has no options."""

LogProbabilities = Mapping[int, Sequence[float]]
"""By item number: of each option, or one value for the beginning of an accepted answer."""


@dataclass(frozen=True)
class Expected:
    """Log-probabilities of one case from transformers."""

    whole: LogProbabilities
    first: LogProbabilities
    """Of the accepted answer's first token, for servers that return no more; empty if options are scored."""


@dataclass(frozen=True)
class Case:
    """Some items of one dataset at one checkpoint, to compare."""

    checkpoint: Checkpoint
    dataset: EvaluationSet
    scores_options: bool
    """Whether log-probabilities of options become a cell; else only replies do."""

    @property
    def name(self) -> tuple[str, str]:
        """Checkpoint and dataset."""
        return self.checkpoint.name, self.dataset.manifest.name

    def key(self, engine: Sequence[Any], model: str, matrix: MatrixConfig) -> str:
        """Digest of everything that decides the result."""
        return json_digest([*engine, model, self.checkpoint.digest, self.dataset.digest, matrix.precision.value])

    def count(self, n: int) -> int:
        """Number of compared items if the config asks for `n`."""
        return min(n, len(self.dataset.samples))


@dataclass(frozen=True)
class ComparisonResult:
    """How far the log-probabilities of an engine are from those of transformers, for one case."""

    engine: str
    precision: str
    checkpoint: str
    dataset: str
    items: int
    """Number of compared items."""
    log_probabilities: int
    """Number of compared values: one per option, or one per item for the beginning of an accepted answer."""
    largest_difference: float | None
    """In nats; None if nothing could be compared."""
    item: str
    """Id of the item with the largest difference."""
    prompts: str
    """How prompts were compared: token ids, number of tokens, or nothing."""
    asked_by: str
    """How prompts were sent: as token ids, or as conversations."""

    def fits(self, tolerance: float) -> bool:
        """Whether all differences are within tolerance, and at least one value was compared."""
        return bool(self.items) and self.largest_difference is not None and self.largest_difference <= tolerance


def comparison_layout(runner: Runner, dataset: EvaluationSet, n: int, first: bool = False) -> BatchedSet:
    """The items of a case; the candidates are the options, or the beginning of the accepted answer.

    Args:
        runner: encodes the dataset.
        dataset: one of the matrix.
        n: items, spread evenly over the dataset; all of them if there are fewer.
        first: only the accepted answer's first token as candidate.
    """
    whole = runner.batches(dataset)
    count = len(whole.samples)
    chosen = sorted({round(k * (count - 1) / max(1, min(n, count) - 1)) for k in range(min(n, count))})
    longest = 1 if first else _MAX_ANSWER_TOKENS
    candidates = [
        ([] if first else ids) or [runner.encoder.answer_ids(sample.answer)[:longest]]
        for sample, ids in zip(whole.samples, whole.candidates, strict=True)
    ]
    return BatchedSet(whole.samples, whole.prompts, candidates, whole.batch_size, [chosen])


def expected_logprobs(runner: ModelRunner, case: Case, n: int) -> Expected:
    """Compute the log-probabilities of a case with transformers.

    Args:
        runner: of the model in this process.
        case: to compare.
        n: number of items.
    """
    runner.use_checkpoint(case.checkpoint)
    whole = _ask_model(runner, comparison_layout(runner, case.dataset, n))
    first = {} if case.scores_options else _ask_model(runner, comparison_layout(runner, case.dataset, n, first=True))
    return Expected(whole, first)


def _ask_model(runner: ModelRunner, asked: BatchedSet) -> LogProbabilities:
    settings = Settings(Decoding.choice, runner.config.precision.value)
    by_item: dict[int, Sequence[float]] = {}
    for number, batch in enumerate(asked.batches):
        for item, prediction in zip(batch, runner.answer(asked, number, settings), strict=True):
            assert prediction.option_logprobs is not None
            by_item[item] = prediction.option_logprobs
    return by_item


def compare_logprobs(
    case: Case,
    engine: str,
    precision: str,
    wanted: LogProbabilities,
    given: LogProbabilities,
    prompts: Collection[str],
    asked_by: str,
) -> ComparisonResult:
    """Compare the log-probabilities of an engine with those of transformers.

    Args:
        case: to compare.
        engine: name and version.
        precision: of both.
        wanted: values of transformers.
        given: values of the engine; without the items for which it returned none.
        prompts: how prompts were compared.
        asked_by: how prompts were sent.
    """
    gaps = [
        (math.inf if math.isnan(a - b) else abs(a - b), item)  # NaN counts as infinitely far off
        for item, logprobs in given.items()
        for a, b in zip(wanted[item], logprobs, strict=True)
    ]
    largest, item = max(gaps, default=(None, None))
    checkpoint, dataset = case.name
    return ComparisonResult(
        engine=engine,
        precision=precision,
        checkpoint=checkpoint,
        dataset=dataset,
        items=len({item for _, item in gaps}),
        log_probabilities=len(gaps),
        largest_difference=largest,
        item="" if item is None else case.dataset.samples[item].id,
        prompts=" and ".join(sorted(prompts)),
        asked_by=asked_by,
    )


def read_result(path: Path) -> ComparisonResult | None:
    """A stored result; None if there is none or it cannot be read, so that the case is compared again."""
    try:
        result = ComparisonResult(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    kinds = (type(result.items), type(result.log_probabilities), type(result.largest_difference))
    texts = (
        result.engine,
        result.precision,
        result.checkpoint,
        result.dataset,
        result.item,
        result.prompts,
        result.asked_by,
    )
    is_valid = kinds == (int, int, float) and all(isinstance(text, str) for text in texts)
    return result if is_valid and math.isfinite(result.largest_difference or 0.0) else None


def store_result(path: Path, result: ComparisonResult) -> None:
    """Store a result for later commands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(result))
