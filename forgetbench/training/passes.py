"""Forward passes of a run, for the loop and for methods: from items to batches, outputs and losses.

Shapes: B items, A answer tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from accelerate.utils import convert_to_fp32
from torch import Tensor

from forgetbench.config import RecipeConfig
from forgetbench.core.errors import UserError
from forgetbench.core.processes import sharing_problem
from forgetbench.core.records import Precision, Sample
from forgetbench.data.batching import batch_examples
from forgetbench.data.collate import IGNORED, PIXELS, Encoder, Example
from forgetbench.methods.base import Batch
from forgetbench.models.features import PictureEncoder
from forgetbench.models.load import LoadedModel
from forgetbench.models.parts import part_of
from forgetbench.training.composition import order_by_length
from forgetbench.training.features import FeatureReuse
from forgetbench.training.fitting import longest_allowed

if TYPE_CHECKING:
    from accelerate import Accelerator

    from forgetbench.training.plan import Stage


class TrainingPasses:
    """Forward and backward passes of one model; implements `methods.base.Passes`."""

    def __init__(
        self,
        accelerator: Accelerator,
        loaded: LoadedModel,
        encoder: Encoder,
        recipe: RecipeConfig,
        seed: int,
        precision: Precision | None = None,
    ) -> None:
        """Prepare.

        Args:
            accelerator: the processes of the run.
            loaded: the model, on its device.
            encoder: of the same model.
            recipe: how to train.
            seed: of the run.
            precision: of the forward pass; None: that of the recipe.
        """
        self.seed = seed
        self._accelerator, self._model, self._encoder, self._recipe = accelerator, loaded.model, encoder, recipe
        self._keeps_logits = loaded.keeps_logits
        self._precision = precision or recipe.precision
        self._pictures = PictureEncoder(loaded.model)
        self.begin_stage()
        self._stages: Sequence[Stage] = ()

    def plan(self, stages: Sequence[Stage]) -> None:
        """Set the stages of the run.

        Raises:
            UserError: a stage's micro-batch cannot be shared by the processes.
        """
        for number, stage in enumerate(stages, start=1):
            recipe = stage.recipe or self._recipe
            micro_batch = recipe.batch_size // recipe.gradient_accumulation
            if reason := sharing_problem(micro_batch, self._accelerator.num_processes):
                raise UserError(f"Stage {number} ({stage.target}): {reason}")
        self._stages = stages

    def begin_stage(self) -> None:
        """Note which parts are frozen from now on; features of earlier weights are dropped."""
        self.features = FeatureReuse(self._model, self._pictures, self._encoder, self._recipe.reuse_features)
        """Picture features that replace pixels."""
        trained = {part_of(name) for name, parameter in self._model.named_parameters() if parameter.requires_grad}
        # A micro-batch of text trains only the language part.
        self._may_compose = "language" in trained

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """Items as one micro-batch that is a whole step, with pixels."""
        examples = self._encode(samples, self._recipe)
        return self._collate(samples, examples, {}, 1.0, sum(example.trained for example in examples))

    def step(self, stage: Stage, number: int) -> list[Batch]:
        """This process's micro-batches of one optimiser step of a stage (steps count from 1)."""
        recipe, samples = stage.recipe or self._recipe, self._draw(stage, number)
        trained = self._count_trained_tokens(recipe, samples)
        is_uniform = not self._orders_by_length(recipe) and all(sample.is_question for sample in samples)
        batches = []
        for part in self._local_micro_batches(recipe, samples):
            examples = self._encode(part, recipe)
            feature_inputs = self.features.inputs if is_uniform else self.features.inputs_per_item
            with self._autocast():
                features = feature_inputs(part, [example.prompt for example in examples], self._to_device)
            batches.append(self._collate(part, examples, features, len(part) / len(samples), trained))
        return batches

    def set_upcoming(self, stage: Stage, steps: Iterable[int]) -> None:
        """Set which steps of a stage come next, so that their pictures can be encoded in one batch."""
        self.features.set_upcoming(self._local_items(stage, steps))

    def upcoming(self, steps: int) -> Iterator[Sequence[Batch]]:
        """This process's micro-batches of the first `steps` optimiser steps of the run."""
        for stage in self._stages:
            numbers = range(1, min(steps, stage.steps) + 1)
            self.set_upcoming(stage, numbers)
            yield from (self.step(stage, number) for number in numbers)
            steps -= len(numbers)

    def forward(self, batch: Batch, model: Any = None) -> Any:
        """A pass that can be differentiated; `logits` may hold the last A + 1 positions only.

        Args:
            batch: the inputs.
            model: the wrapped model of the loop; by default the model itself.
        """
        limit = {"logits_to_keep": batch.labels.shape[1] + 1} if self._keeps_logits else {}
        with self._autocast():
            return convert_to_fp32((model or self._model)(**batch.inputs, **limit, use_cache=False))

    @torch.no_grad()
    def reference(self, batch: Batch, weights: Mapping[str, Tensor]) -> Any:
        """A pass without graph and dropout; `weights`, by live name, replace those of the model."""
        limit = {"logits_to_keep": batch.labels.shape[1] + 1} if self._keeps_logits else {}
        training = self._model.training
        self._model.eval()
        try:
            with self._autocast():
                inputs = {**batch.inputs, **limit, "use_cache": False}
                return convert_to_fp32(torch.func.functional_call(self._model, dict(weights), (), inputs))
        finally:
            self._model.train(training)

    def answer_logits(self, batch: Batch, outputs: Any) -> Tensor:
        """fp32 logits (B, A, V) that predict the answer tokens."""
        logits: Tensor = outputs.logits[:, -batch.labels.shape[1] - 1 : -1].float()
        return logits

    def loss(self, batch: Batch, outputs: Any) -> Tensor:
        """Negative log-likelihood summed over the answer tokens."""
        logits_BAV = self.answer_logits(batch, outputs)
        return F.cross_entropy(logits_BAV.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="sum")

    def backward(self, batch: Batch, outputs: Any, penalty: Tensor | None = None) -> Tensor:
        """Back-propagate a micro-batch's share of its step's mean loss per answer token, plus a penalty.

        Returns:
            The micro-batch's share of the task loss, summed over processes.
        """
        task_loss = self.loss(batch, outputs) / batch.answers
        loss = task_loss if penalty is None else task_loss + penalty
        if loss.requires_grad:
            # Data-parallel training averages over processes, but the loss is a sum.
            self._accelerator.backward(loss * self._accelerator.num_processes)
        elif self._accelerator.num_processes > 1:
            raise UserError(
                "recipe.parts: a micro-batch of text alone trains nothing in the vision tower or the projector, and "
                "the processes would wait for each other; use a larger recipe.batch_size, or one process."
            )
        return self.total(task_loss.detach()).cpu()

    def local_share(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """This process's share of some items."""
        return samples[self._accelerator.process_index :: self._accelerator.num_processes]

    def largest(self, tensor: Tensor) -> Tensor:
        """Maximum over processes of a tensor with one element."""
        gathered: Tensor = self._accelerator.gather(tensor.reshape(1))
        return gathered.max()

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over processes."""
        summed: Tensor = self._accelerator.reduce(tensor, "sum")
        return summed

    def _local_items(self, stage: Stage, steps: Iterable[int]) -> Iterator[Sample]:
        """The items that this process trains on in some steps of a stage."""
        for step in steps:
            for samples in self._local_micro_batches(stage.recipe or self._recipe, self._draw(stage, step)):
                yield from samples

    def _draw(self, stage: Stage, step: int) -> list[Sample]:
        """The items of one optimiser step, over all processes."""
        return stage.stream.batch(step, (stage.recipe or self._recipe).batch_size)

    def _orders_by_length(self, recipe: RecipeConfig) -> bool:
        """Whether items may be moved between the micro-batches of a step, over accumulation and processes."""
        return self._may_compose and recipe.gradient_accumulation * self._accelerator.num_processes > 1

    def _local_micro_batches(self, recipe: RecipeConfig, samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
        """This process's items of every micro-batch of one optimiser step."""
        size = len(samples) // recipe.gradient_accumulation
        rank, world = self._accelerator.process_index, self._accelerator.num_processes
        if self._orders_by_length(recipe):
            samples = order_by_length(samples, self._lengths(recipe, samples), recipe.gradient_accumulation)
            share = size // world
            for start in range(rank * share, len(samples), size):
                yield samples[start : start + share]
            return
        for start in range(0, len(samples), size):
            yield samples[start + rank : start + size : world]

    def _lengths(self, recipe: RecipeConfig, samples: Sequence[Sample]) -> list[int]:
        """Lengths in tokens; estimates with several processes, so that no process opens the pictures of others."""
        if self._accelerator.num_processes > 1:
            return [self._encoder.estimated_length(sample) for sample in samples]
        return [example.length for example in self._encode(samples, recipe)]

    def _count_trained_tokens(self, recipe: RecipeConfig, samples: Sequence[Sample]) -> int:
        """Number of tokens of a step that have a loss."""
        if self._accelerator.num_processes > 1:
            return sum(self._encoder.trained(sample, recipe.train_on, recipe.train_after_end) for sample in samples)
        return sum(example.trained for example in self._encode(samples, recipe))

    def _encode(self, samples: Sequence[Sample], recipe: RecipeConfig) -> list[Example]:
        examples = [self._encoder.example(sample, recipe.train_on, recipe.train_after_end) for sample in samples]
        limit = longest_allowed(self._model.config, recipe)
        for sample, example in zip(samples, examples, strict=True):
            if limit is not None and example.length > limit:
                raise UserError(
                    f"Item '{sample.id}' has {example.length} tokens, more than {limit}, the model's context or "
                    "recipe.max_length."
                )
        return examples

    def _collate(
        self,
        samples: Sequence[Sample],
        examples: Sequence[Example],
        features: Mapping[str, Any],
        share: float,
        trained: int,
    ) -> Batch:
        """One micro-batch; picture features, if there are any, replace its pixels."""
        inputs = self._to_device(batch_examples(examples, self._encoder.pad_id, without=PIXELS if features else ()))
        labels_BA = inputs.pop("labels")
        lengths = [example.prompt.length for example in examples]
        return Batch({**inputs, **features}, labels_BA, samples, lengths, share, trained)

    def _to_device(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: value.to(self._accelerator.device) for key, value in tensors.items()}

    def _autocast(self) -> torch.autocast:
        bf16 = self._precision is Precision.bf16
        return torch.autocast(self._accelerator.device.type, torch.bfloat16, enabled=bf16)
