"""Hold an engine's log-probabilities against transformers', and remember how far apart they were."""

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

_LONGEST = 8
"""Tokens of an accepted answer that are compared where a dataset has no options."""

LogProbabilities = Mapping[int, Sequence[float]]
"""By item: of each option, or of the beginning of an accepted answer."""


@dataclass(frozen=True)
class Expected:
    """What transformers gives."""

    whole: LogProbabilities
    first: LogProbabilities
    """Of the accepted answer's first token alone, for servers that tell no more; none where options are scored."""


@dataclass(frozen=True)
class Case:
    """What is compared: some items of one dataset at one checkpoint."""

    checkpoint: Checkpoint
    dataset: EvaluationSet
    scores_options: bool
    """Whether log-probabilities of options become a cell; else replies alone do."""

    @property
    def name(self) -> tuple[str, str]:
        """Checkpoint and dataset."""
        return self.checkpoint.name, self.dataset.manifest.name

    def key(self, engine: Sequence[Any], model: str, matrix: MatrixConfig) -> str:
        """Digest of all that decides what comes out."""
        return json_digest([*engine, model, self.checkpoint.digest, self.dataset.digest, matrix.precision.value])

    def count(self, n: int) -> int:
        """How many items are compared where `n` are asked for."""
        return min(n, len(self.dataset.samples))


@dataclass(frozen=True)
class Finding:
    """How far an engine was from transformers."""

    engine: str
    precision: str
    checkpoint: str
    dataset: str
    items: int
    """Compared."""
    log_probabilities: int
    """Compared: one for each option of each item, or one for the beginning of an accepted answer."""
    largest_difference: float | None
    """In nats; None where nothing could be compared."""
    item: str
    """Where it was largest."""
    prompts: str
    """What of each item's prompt was compared besides: token ids, number of tokens, or nothing."""
    asked_by: str
    """How prompts were sent: as token ids, or as conversations."""

    def fits(self, tolerance: float) -> bool:
        """Whether every log-probability is near enough, and there was one."""
        return bool(self.items) and self.largest_difference is not None and self.largest_difference <= tolerance


def layout_of(runner: Runner, dataset: EvaluationSet, n: int, first: bool = False) -> BatchedSet:
    """The items of a case with what is compared of each: options, or the beginning of the accepted answer.

    Args:
        runner: encodes the dataset.
        dataset: one of the matrix.
        n: items, spread evenly over the dataset; all of them if there are fewer.
        first: the accepted answer's first token instead.
    """
    whole = runner.batches(dataset)
    count = len(whole.samples)
    chosen = sorted({round(k * (count - 1) / max(1, min(n, count) - 1)) for k in range(min(n, count))})
    longest = 1 if first else _LONGEST
    candidates = [
        ([] if first else ids) or [runner.encoder.answer_ids(sample.answer)[:longest]]
        for sample, ids in zip(whole.samples, whole.candidates, strict=True)
    ]
    return BatchedSet(whole.samples, whole.prompts, candidates, whole.batch_size, [chosen])


def expected(runner: ModelRunner, case: Case, n: int) -> Expected:
    """What transformers gives.

    Args:
        runner: of the model in this process.
        case: what is compared.
        n: items.
    """
    runner.move(case.checkpoint)
    whole = _asked(runner, layout_of(runner, case.dataset, n))
    first = {} if case.scores_options else _asked(runner, layout_of(runner, case.dataset, n, first=True))
    return Expected(whole, first)


def _asked(runner: ModelRunner, asked: BatchedSet) -> LogProbabilities:
    settings = Settings(Decoding.choice, runner.config.precision.value)
    found: dict[int, Sequence[float]] = {}
    for number, batch in enumerate(asked.batches):
        for item, one in zip(batch, runner.answer(asked, number, settings), strict=True):
            assert one.option_logprobs is not None
            found[item] = one.option_logprobs
    return found


def compared(
    case: Case,
    engine: str,
    precision: str,
    wanted: LogProbabilities,
    given: LogProbabilities,
    prompts: Collection[str],
    asked_by: str,
) -> Finding:
    """Hold what an engine gave against what transformers gives.

    Args:
        case: what is compared.
        engine: with its version.
        precision: of both.
        wanted: what transformers gives.
        given: what the engine gave; items that it could not tell are absent.
        prompts: what of the prompts was compared.
        asked_by: how prompts were sent.
    """
    gaps = [
        (math.inf if math.isnan(a - b) else abs(a - b), item)  # what is no number is as far off as can be
        for item, one in given.items()
        for a, b in zip(wanted[item], one, strict=True)
    ]
    largest, item = max(gaps, default=(None, None))
    checkpoint, dataset = case.name
    return Finding(
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


def read_finding(path: Path) -> Finding | None:
    """A result that was kept; None where there is none, or none that can be read: it is found out again."""
    try:
        found = Finding(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    kinds = (type(found.items), type(found.log_probabilities), type(found.largest_difference))
    texts = (found.engine, found.precision, found.checkpoint, found.dataset, found.item, found.prompts, found.asked_by)
    is_one = kinds == (int, int, float) and all(isinstance(one, str) for one in texts)
    return found if is_one and math.isfinite(found.largest_difference or 0.0) else None


def keep_finding(path: Path, finding: Finding) -> None:
    """Keep a result for commands to come."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(finding))
