"""The hooks a fine-tuning method may use; each does nothing unless a method overrides it.

A method is a dataclass: its fields are its configuration, its docstring the documentation, its hooks the code. The
training loop calls every hook and never asks which method it has: `attach` and `begin` once, `begin_stage` and
`optimised` at the start of every stage. In one optimiser step the order is

    penalty (per micro-batch) -> edit_gradients -> clipping -> optimiser -> edit_weights (gradients still there)

Shapes: B items, T tokens, A answer tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from forgetbench.core.records import Precision, Sample

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """One micro-batch, on the model's device."""

    inputs: Mapping[str, Any]
    """Keyword arguments of the model's forward: input_ids (B, T + A) and the like; picture features may stand in for
    pixels where vision tower and projector are frozen."""
    labels: Tensor
    """(B, A): token ids of the last A positions, -100 where no loss is taken."""
    samples: Sequence[Sample]
    """The B items."""
    prompt_tokens: Sequence[int]
    """Of each item, tokens up to its last reply, without padding."""
    share: float
    """Share of the optimiser step's instances, over all micro-batches and processes."""
    answers: int
    """Tokens of the whole step that the loss is taken on, over all micro-batches and processes."""


class Passes(Protocol):
    """Forward passes in the run's own precision, and the data of the run."""

    seed: int

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """Items as one micro-batch that is a step by itself."""

    def forward(self, batch: Batch) -> Any:
        """A pass that can be differentiated; `logits` may hold the last A + 1 positions only."""

    def reference(self, batch: Batch, weights: Mapping[str, Tensor]) -> Any:
        """A pass without graph and dropout, with `weights` in place of the model's own, by live name."""

    def answer_logits(self, batch: Batch, outputs: Any) -> Tensor:
        """fp32 logits (B, A, V) that predict the answer tokens."""

    def loss(self, batch: Batch, outputs: Any) -> Tensor:
        """Negative log-likelihood summed over the answer tokens."""

    def upcoming(self, steps: int) -> Iterator[Sequence[Batch]]:
        """This process's micro-batches of the first `steps` optimiser steps of the run."""

    def local_share(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """This process's share of some items."""

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over processes."""

    def largest(self, tensor: Tensor) -> Tensor:
        """Largest of a single number over processes."""


@dataclass
class TrainingContext:
    """What a method sees of a training run; the loop keeps it up to date."""

    model: Any
    """The unwrapped model."""
    trainable: Mapping[str, nn.Parameter]
    """Parameters that the current stage trains, by live name; in `begin` those of all stages."""
    passes: Passes
    read: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    """Training items of the sets that the method `reads`."""
    targets: Sequence[Sequence[Sample]] = ()
    """Training items of the target set of every stage."""
    step: int = 0
    """Optimiser steps done before the current one, over all stages."""
    stage: int = 1
    """The current one, counted from 1."""


@dataclass
class Method:
    """Plain fine-tuning: the optimiser's step on the task loss, nothing else."""

    name: str = "plain"

    def problems(self) -> Mapping[str, str]:
        """What is wrong with the settings: field -> what to give instead."""
        return {}

    def problems_of_one_stage(self) -> Mapping[str, str]:
        """What is wrong with the settings where nothing is trained before or after: field -> what to give instead."""
        return {}

    def adapted_parts(self) -> Sequence[str]:
        """Words of `recipe.parts` whose own weights stay frozen because the method adds weights to them."""
        return ()

    def against_sharding(self) -> str:
        """Why it cannot run with sharding=fsdp2, which slices every tensor over the processes; empty where it can.

        A method that says it can gets sliced parameters and gradients (DTensor): entry by entry they are like any
        others, for numbers about a whole tensor there are `whole` and `total` in `forgetbench.models.tensors`.
        """
        return "" if type(self) is Method else "it has not been written for slices of tensors"

    def forward_precision(self) -> Precision | None:
        """Arithmetic of the forward pass where the method must choose it; None leaves it to the recipe."""
        return None

    def copies(self) -> float:
        """fp32 values kept for each trained weight besides it, its gradient and its moments; for `models plan`."""
        return 0.0

    def reads(self) -> Sequence[str]:
        """Sets whose training items the method needs besides the run's own; its field `reference` names them."""
        return ()

    def attach(self, model: Any, stages: int) -> None:
        """Change the model's structure (adapters); called before training and before evaluation alike."""

    def frozen(self, model: Any, trainable: Collection[str], seed: int) -> Collection[str]:
        """Names out of `trainable` that stay frozen throughout."""
        return ()

    def begin(self, context: TrainingContext) -> None:
        """Called once before the first step, on the starting weights; also before a resumed run."""

    def begin_stage(self, context: TrainingContext) -> None:
        """Called before the first step of every stage, also of a stage that is resumed, on the weights it starts from.

        Weights may be changed here; those that do not train must be named by `changed`.
        """

    def changed(self, model: Any) -> Collection[str]:
        """Names of frozen weights that the method changes, besides what trains: checkpoints hold them too."""
        return ()

    def optimised(self, context: TrainingContext) -> Mapping[str, nn.Parameter]:
        """What the optimiser of a stage steps, by live name, after `begin_stage`.

        Tensors of the method's own get their gradients in `edit_gradients` and are copied back in `edit_weights`.
        """
        return context.trainable

    def penalty(self, context: TrainingContext, batch: Batch, outputs: Any) -> Tensor | None:
        """A micro-batch's share of a term added to the step's loss: the shares are summed over micro-batches."""
        return None

    def edit_gradients(self, context: TrainingContext) -> None:
        """Change the accumulated gradients in place, before they are clipped; some may be None."""

    def edit_weights(self, context: TrainingContext) -> None:
        """Change the weights in place after the optimiser's step; the clipped gradients are still there."""

    def state(self) -> dict[str, Tensor]:
        """Tensors that a resumed run needs."""
        return {}

    def load_state(self, context: TrainingContext, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave, whole and in main memory; the weights are back already."""
