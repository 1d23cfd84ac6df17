"""The model's side of evaluation: loaded once, moved from checkpoint to checkpoint, asked batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import transformers

from forgetbench.config import MatrixConfig
from forgetbench.core.errors import UserError
from forgetbench.core.records import Decoding, Prediction
from forgetbench.data.collate import Encoder
from forgetbench.data.encoded import encode
from forgetbench.evaluation.batches import BatchedSet, batched
from forgetbench.evaluation.cells import BeyondContext
from forgetbench.evaluation.distances import part_distances
from forgetbench.evaluation.engine import Engine
from forgetbench.evaluation.hidden_states import Observer
from forgetbench.evaluation.replies import ReplyDecoder
from forgetbench.evaluation.representation import LayerMeasure, PartDistance
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.evaluation.settings import Settings
from forgetbench.evaluation.swap import WeightSwap
from forgetbench.methods.experts import expert_parts
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.models.context import context_of
from forgetbench.models.load import LoadedModel
from forgetbench.models.parts import part_of
from forgetbench.models.precision import at_precision, is_packed
from forgetbench.models.tensors import tensors_digest
from forgetbench.terminal.console import note

GIB = 1 << 30


class ModelRunner:
    """One loaded model, at one checkpoint at a time."""

    def __init__(self, loaded: LoadedModel, encoder: Encoder, config: MatrixConfig, cache: Path) -> None:
        """Take the model on its base weights, adapters attached.

        Args:
            loaded: the model.
            encoder: of the same model.
            config: what is scored, and how.
            cache: folder of encoded prompts, shared by all runs.

        Raises:
            UserError: the model cannot run in the precision, or has no such layer to measure.
        """
        self._inputs_digest, self._encoder, self._config, self._cache = loaded.inputs_digest, encoder, config, cache
        at_precision(loaded.model, config.precision)
        self._engine = Engine(loaded, encoder, int(config.feature_gb * GIB), config.reasoning.marks)
        self._model = loaded.model
        # A layer that is not there is refused before anything is asked.
        self._observer = Observer(loaded, encoder.pad_id, config) if config.representation.enabled else None
        self._swap = WeightSwap(loaded.model)
        self._at: Checkpoint | None = None
        self._sets: dict[EvaluationSet, BatchedSet] = {}
        self._longest: dict[EvaluationSet, int] = {}
        self._replies, self._has_warned = ReplyDecoder(encoder, config.reasoning.marks), False

    def move(self, checkpoint: Checkpoint) -> None:
        """Put the model at a checkpoint, in place."""
        if checkpoint is self._at:
            return
        delta = checkpoint.delta()
        self._swap.to(delta)
        pictures = {name: tensor for name, tensor in delta.items() if part_of(name) != "language"}
        self._engine.begin(tensors_digest(pictures) if pictures else "")
        self._at = checkpoint

    def batches(self, dataset: EvaluationSet) -> BatchedSet:
        """The dataset's batches, encoded and laid out once."""
        if dataset not in self._sets:
            name = f"{dataset.digest} {self._inputs_digest} {transformers.__version__}"
            folder = self._cache / hashlib.sha256(name.encode()).hexdigest()
            prompts = encode(dataset.samples, self._encoder, folder, int(self._config.cache_gb * GIB))
            size = self._config.batch_size
            self._sets[dataset] = batched(dataset.samples, prompts, self._encoder, size, dataset.blocks)
        return self._sets[dataset]

    def resolved(self, dataset: EvaluationSet, settings: Settings) -> Settings:
        """The settings with every default in place."""
        if settings.decoding is Decoding.choice:
            return settings
        if settings.max_new_tokens is None:
            if dataset not in self._longest:
                # Of the whole split: how long an answer may be must not depend on which other items are scored.
                self._longest[dataset] = max(map(self._encoder.longest_answer, dataset.whole))
            # With room for a short sentence around it.
            settings = replace(settings, max_new_tokens=self._longest[dataset] + 6)
        self._say_lack_of_room(dataset, settings)
        return settings

    def _say_lack_of_room(self, dataset: EvaluationSet, settings: Settings) -> None:
        """Say once that thoughts have no room: of the first dataset that leaves them none."""
        if not self._has_warned and (lack := self._replies.lack_of_room(settings)):
            self._has_warned = True
            note(f"{dataset.manifest.name}: {lack}")

    def beyond_context(self, dataset: EvaluationSet, settings: Settings) -> BeyondContext | None:
        """The items that are longer than the model's context; None where all fit.

        Raises:
            UserError: the model has no further positions, so that they cannot be asked.
        """
        context = context_of(self._model.config)
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

    def answer(self, dataset: EvaluationSet, number: int, settings: Settings) -> list[Prediction]:
        """The predictions for one batch, in its order."""
        return self._engine.answer(self.batches(dataset), number, settings)

    def layers(self, dataset: EvaluationSet, items: Sequence[int]) -> list[LayerMeasure]:
        """Hidden states at the picture tokens of some items, beside the base's."""
        assert self._observer is not None
        return self._observer.measure(dataset.manifest.name, self.batches(dataset), items, self._swap.replaced)

    def distances(self) -> list[PartDistance]:
        """How far the weights are from the base's; of parts with experts or packed weights there is no saying."""
        packed = {part_of(name) for name, one in self._model.named_parameters() if is_packed(one)}
        return part_distances(self._model, self._swap.replaced, expert_parts(self._model) | packed)
