"""Interface to what answers the questions of a matrix: a model in this process, or a server."""

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
from forgetbench.evaluation.batches import BatchedSet, batch_dataset
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
    """In the order of the batch."""
    seconds: float
    """Time that the model took to answer."""


class Runner(ABC):
    """Asks the items of datasets, of one checkpoint at a time."""

    def __init__(
        self, encoder: Encoder, inputs_digest: str, context: Context, config: MatrixConfig, cache: Path
    ) -> None:
        """Prepare to encode datasets.

        Args:
            encoder: of the model.
            inputs_digest: of everything that decides how prompts and pictures become model inputs.
            context: of the model.
            config: the matrix.
            cache: folder of encoded prompts, shared by all runs.
        """
        self.encoder, self.config = encoder, config
        self._inputs_digest, self._context, self._cache = inputs_digest, context, cache
        self._sets: dict[EvaluationSet, BatchedSet] = {}
        self._longest: dict[EvaluationSet, int] = {}
        self._has_warned = False

    @abstractmethod
    def use_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Ask this checkpoint from now on."""

    @abstractmethod
    def answers(self, dataset: EvaluationSet, numbers: Sequence[int], settings: Settings) -> Iterator[Answers]:
        """Ask some of a dataset's batches; yields each as soon as it is answered.

        Args:
            dataset: one of the matrix.
            numbers: of the batches.
            settings: with all defaults filled in.
        """

    def batches(self, dataset: EvaluationSet) -> BatchedSet:
        """The dataset's batches, encoded and laid out once."""
        if dataset not in self._sets:
            name = f"{dataset.digest} {self._inputs_digest} {transformers.__version__}"
            folder = self._cache / hashlib.sha256(name.encode()).hexdigest()
            prompts = encode(dataset.samples, self.encoder, folder, int(self.config.cache_gb * GIB))
            size = self.config.batch_size
            self._sets[dataset] = batch_dataset(dataset.samples, prompts, self.encoder, size, dataset.blocks)
        return self._sets[dataset]

    def resolve(self, dataset: EvaluationSet, settings: Settings) -> Settings:
        """The settings with all defaults filled in."""
        if settings.decoding is Decoding.choice:
            return settings
        if settings.max_new_tokens is None:
            if dataset not in self._longest:
                # Over the whole split: the cap must not depend on which other items are scored.
                self._longest[dataset] = max(map(self.encoder.longest_answer, dataset.all_samples))
            # Room for a short sentence around the answer.
            settings = replace(settings, max_new_tokens=self._longest[dataset] + 6)
        self._warn_of_short_thoughts(dataset, settings)
        return settings

    def _warn_of_short_thoughts(self, dataset: EvaluationSet, settings: Settings) -> None:
        """Warn once, for the first dataset whose caps leave no room for thoughts."""
        lack = ReplyDecoder(self.encoder, self.config.reasoning.marks).thought_cap_warning(settings)
        if lack and not self._has_warned:
            self._has_warned = True
            note(f"{dataset.manifest.name}: {lack}")

    def beyond_context(self, dataset: EvaluationSet, settings: Settings) -> BeyondContext | None:
        """The items that are longer than the model's context; None if all fit.

        Raises:
            UserError: there are such items, and the model has no positions beyond its context.
        """
        context = self._context
        if context.length is None:
            return None
        layout = self.batches(dataset)
        lengths = list(layout.prompts.lengths)
        if settings.decoding is Decoding.choice:
            lengths = [n + max(map(len, ids)) for n, ids in zip(lengths, layout.candidates, strict=True)]
        beyond = [item for item, length in enumerate(lengths) if length > context.length]
        if not beyond:
            return None
        longest = max(beyond, key=lambda item: (lengths[item], -item))
        overflow = BeyondContext(len(beyond), dataset.samples[longest].id, lengths[longest], context.length)
        if context.is_hard:
            raise UserError(
                f"{dataset.manifest.name}: items are longer than the model's context, which has no further positions: "
                f"{overflow.items} of more than {context.length} tokens, the longest '{overflow.longest_id}' with "
                f"{overflow.tokens}. Shrink pictures with model.max_pixels, or leave the dataset out."
            )
        return overflow
