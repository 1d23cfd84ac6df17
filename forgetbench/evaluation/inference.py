"""Run a model in this process: loaded once, moved from checkpoint to checkpoint, asked batch by batch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from forgetbench.config import MatrixConfig
from forgetbench.core.records import Prediction
from forgetbench.data.collate import Encoder
from forgetbench.evaluation.batches import BatchedSet
from forgetbench.evaluation.distances import part_distances
from forgetbench.evaluation.engine import Engine
from forgetbench.evaluation.hidden_states import LayerMeasurer
from forgetbench.evaluation.representation import LayerMeasure, PartDistance
from forgetbench.evaluation.runner import GIB, Answers, Runner
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


class ModelRunner(Runner):
    """One loaded model, at one checkpoint at a time."""

    def __init__(
        self, loaded: LoadedModel, encoder: Encoder, config: MatrixConfig, cache: Path, device: str | None = None
    ) -> None:
        """Take the model on its base weights, adapters attached.

        Args:
            loaded: the model.
            encoder: of the same model.
            config: what is scored, and how.
            cache: folder of encoded prompts, shared by all runs.
            device: to run it on; None for a GPU if there is one.

        Raises:
            UserError: the model cannot run in the precision, or has no such layer to measure.
        """
        super().__init__(encoder, loaded.inputs_digest, context_of(loaded.model.config), config, cache)
        at_precision(loaded.model, config.precision)
        self._engine = Engine(loaded, encoder, int(config.feature_gb * GIB), config.reasoning.marks, device)
        self._model = loaded.model
        # Refuses a layer that does not exist before anything is asked.
        self._layer_measurer = LayerMeasurer(loaded, encoder.pad_id, config) if config.representation.enabled else None
        self._swap = WeightSwap(loaded.model)
        self._current: Checkpoint | None = None

    def use_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Put the model at a checkpoint, in place."""
        if checkpoint is self._current:
            return
        delta = checkpoint.delta()
        self._swap.to(delta)
        pictures = {name: tensor for name, tensor in delta.items() if part_of(name) != "language"}
        self._engine.set_picture_state(tensors_digest(pictures) if pictures else "")
        self._current = checkpoint

    def answers(self, dataset: EvaluationSet, numbers: Sequence[int], settings: Settings) -> Iterator[Answers]:
        """Ask batch after batch."""
        for number in numbers:
            started = time.perf_counter()
            predictions = self.answer(self.batches(dataset), number, settings)
            yield Answers(number, predictions, time.perf_counter() - started)

    def answer(self, layout: BatchedSet, number: int, settings: Settings) -> list[Prediction]:
        """The predictions for one batch, in its order."""
        return self._engine.answer(layout, number, settings)

    def layers(self, dataset: EvaluationSet, items: Sequence[int]) -> list[LayerMeasure]:
        """Compare hidden states at the picture tokens of some items with those of the base."""
        assert self._layer_measurer is not None
        return self._layer_measurer.measure(dataset.manifest.name, self.batches(dataset), items, self._swap.base_values)

    def distances(self) -> list[PartDistance]:
        """How far the weights are from the base's; without parts that have experts or packed weights."""
        packed = {part_of(name) for name, parameter in self._model.named_parameters() if is_packed(parameter)}
        return part_distances(self._model, self._swap.base_values, expert_parts(self._model) | packed)
