"""What answers a matrix's questions: a model in this process, or a server."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import transformers

from forgetbench.config import MatrixConfig
from forgetbench.core.errors import UserError
from forgetbench.core.records import Decoding, Prediction
from forgetbench.data.collate import Encoder
from forgetbench.data.encoded import encode
from forgetbench.evaluation.batches import BatchedSet, batched
from forgetbench.evaluation.cells import BeyondContext
from forgetbench.evaluation.replies import ReplyDecoder
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.evaluation.settings import Settings
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.models.context import Context
from forgetbench.terminal.console import note

GIB = 1 << 30


@dataclass(frozen=True)
class Answers:
    """The answers to one batch."""

    number: int
    """Of the batch."""
    predictions: Sequence[Prediction]
    """In its order."""
    seconds: float
    """What asking took."""


class Runner(ABC):
    """Asks the items of datasets, of one checkpoint at a time."""

    def __init__(
        self, encoder: Encoder, inputs_digest: str, context: Context, config: MatrixConfig, cache: Path
    ) -> None:
        """Prepare to encode datasets.

        Args:
            encoder: of the model.
            inputs_digest: of all that decides how prompts and pictures become model inputs.
            context: of the model.
            config: what is scored, and how.
            cache: folder of encoded prompts, shared by all runs.
        """
        self.encoder, self.config = encoder, config
        self._inputs_digest, self._context, self._cache = inputs_digest, context, cache
        self._sets: dict[EvaluationSet, BatchedSet] = {}
        self._longest: dict[EvaluationSet, int] = {}
        self._has_warned = False

    @abstractmethod
    def move(self, checkpoint: Checkpoint) -> None:
        """Ask this checkpoint from now on."""

    @abstractmethod
    def answers(self, dataset: EvaluationSet, numbers: Sequence[int], settings: Settings) -> Iterator[Answers]:
        """Ask some of a dataset's batches, each kept as soon as it is there.

        Args:
            dataset: one of the matrix.
            numbers: of the batches.
            settings: how; with every default in place.
        """

    def batches(self, dataset: EvaluationSet) -> BatchedSet:
        """The dataset's batches, encoded and laid out once."""
        if dataset not in self._sets:
            name = f"{dataset.digest} {self._inputs_digest} {transformers.__version__}"
            folder = self._cache / hashlib.sha256(name.encode()).hexdigest()
            prompts = encode(dataset.samples, self.encoder, folder, int(self.config.cache_gb * GIB))
            size = self.config.batch_size
            self._sets[dataset] = batched(dataset.samples, prompts, self.encoder, size, dataset.blocks)
        return self._sets[dataset]

    def resolved(self, dataset: EvaluationSet, settings: Settings) -> Settings:
        """The settings with every default in place."""
        if settings.decoding is Decoding.choice:
            return settings
        if settings.max_new_tokens is None:
            if dataset not in self._longest:
                # Of the whole split: how long an answer may be must not depend on which other items are scored.
                self._longest[dataset] = max(map(self.encoder.longest_answer, dataset.whole))
            # With room for a short sentence around it.
            settings = replace(settings, max_new_tokens=self._longest[dataset] + 6)
        self._say_lack_of_room(dataset, settings)
        return settings

    def _say_lack_of_room(self, dataset: EvaluationSet, settings: Settings) -> None:
        """Say once that thoughts have no room, of the first dataset that leaves them none."""
        lack = ReplyDecoder(self.encoder, self.config.reasoning.marks).lack_of_room(settings)
        if lack and not self._has_warned:
            self._has_warned = True
            note(f"{dataset.manifest.name}: {lack}")

    def beyond_context(self, dataset: EvaluationSet, settings: Settings) -> BeyondContext | None:
        """The items that are longer than the model's context; None where all fit.

        Raises:
            UserError: the model has no further positions, so that they cannot be asked.
        """
        context = self._context
        if context.length is None:
            return None
        batched_set = self.batches(dataset)
        lengths = list(batched_set.prompts.lengths)
        if settings.decoding is Decoding.choice:
            lengths = [n + max(map(len, ids)) for n, ids in zip(lengths, batched_set.candidates, strict=True)]
        beyond = [item for item, length in enumerate(lengths) if length > context.length]
        if not beyond:
            return None
        longest = max(beyond, key=lambda item: (lengths[item], -item))
        found = BeyondContext(len(beyond), dataset.samples[longest].id, lengths[longest], context.length)
        if context.is_hard:
            raise UserError(
                f"{dataset.manifest.name}: items are longer than the model's context, which has no further positions: "
                f"{found.items} of more than {context.length} tokens, the longest '{found.longest_id}' with "
                f"{found.tokens}. Shrink pictures with model.max_pixels, or leave the dataset out."
            )
        return found
