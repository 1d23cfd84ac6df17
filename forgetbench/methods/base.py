"""The base class of fine-tuning methods; each hook does nothing unless a method overrides it.

A method is a dataclass: its fields are the configuration, its docstring the documentation, its hooks the code. The
training loop calls every hook of any method: `attach` and `begin` once, `begin_stage` and `optimised` at the start of
every stage. The order in an optimiser step is

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
    """A micro-batch, on the model's device."""

    inputs: Mapping[str, Any]
    """Keyword arguments of the model's forward, such as input_ids (B, T + A). Picture features may replace pixels if
    vision tower and projector are frozen."""
    labels: Tensor
    """(B, A): token ids of the last A positions, -100 outside the loss."""
    samples: Sequence[Sample]
    """The B items."""
    prompt_tokens: Sequence[int]
    """For each item, number of tokens up to its last reply, without padding."""
    share: float
    """Share of the optimiser step's instances that are in this micro-batch, over all micro-batches and processes."""
    answers: int
    """Number of tokens in the loss of the whole step, over all micro-batches and processes."""


class Passes(Protocol):
    """Forward passes in the run's precision, and the run's data."""

    seed: int

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """Encode items as a micro-batch that is a whole step."""

    def forward(self, batch: Batch) -> Any:
        """A differentiable forward pass; `logits` may hold only the last A + 1 positions."""

    def reference(self, batch: Batch, weights: Mapping[str, Tensor]) -> Any:
        """A forward pass without graph and dropout; `weights` replaces the model's weights of these names."""

    def answer_logits(self, batch: Batch, outputs: Any) -> Tensor:
        """fp32 logits (B, A, V) that predict the answer tokens."""

    def loss(self, batch: Batch, outputs: Any) -> Tensor:
        """Negative log-likelihood summed over the answer tokens."""

    def upcoming(self, steps: int) -> Iterator[Sequence[Batch]]:
        """This process's micro-batches of the first `steps` optimiser steps of the run."""

    def local_share(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """This process's share of the items."""

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over processes."""

    def largest(self, tensor: Tensor) -> Tensor:
        """Maximum of a scalar over processes."""


@dataclass
class TrainingContext:
    """The state of a training run, as methods see it; the loop updates it."""

    model: Any
    """The unwrapped model."""
    trainable: Mapping[str, nn.Parameter]
    """Parameters that the current stage trains, by name; in `begin`, the parameters of all stages."""
    passes: Passes
    read: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    """Dataset -> training items, for the datasets that the method `reads`."""
    targets: Sequence[Sequence[Sample]] = ()
    """Training items of each stage's target dataset."""
    step: int = 0
    """Optimiser steps done before the current one, over all stages."""
    stage: int = 1
    """Number of the current stage, from 1."""


@dataclass
class Method:
    """Plain fine-tuning: optimiser steps on the task loss."""

    name: str = "plain"

    def problems(self) -> Mapping[str, str]:
        """Invalid settings: field -> message."""
        return {}

    def problems_of_one_stage(self) -> Mapping[str, str]:
        """Settings that are invalid in a run of a single stage: field -> message."""
        return {}

    def adapted_parts(self) -> Sequence[str]:
        """Words of `recipe.parts` whose weights stay frozen because the method adds adapters to them."""
        return ()

    def against_sharding(self) -> str:
        """Why the method cannot run with sharding=fsdp2, which shards every tensor over processes; empty if it can.

        Then parameters and gradients are DTensors. Elementwise code needs no change; for statistics of whole tensors
        use `whole` and `total` of `forgetbench.models.tensors`.
        """
        return "" if type(self) is Method else "it has not been written for slices of tensors"

    def forward_precision(self) -> Precision | None:
        """Precision of the forward pass if the method requires one; None leaves it to the recipe."""
        return None

    def copies(self) -> float:
        """fp32 values kept per trained weight, besides weight, gradient and moments; for `models plan`."""
        return 0.0

    def reads(self) -> Sequence[str]:
        """Further datasets whose training items the method needs; its field `reference` names them."""
        return ()

    def attach(self, model: Any, stages: int) -> None:
        """Change the model's structure (adapters); called before training and before evaluation alike."""

    def frozen(self, model: Any, trainable: Collection[str], seed: int) -> Collection[str]:
        """Names in `trainable` that stay frozen in the whole run."""
        return ()

    def begin(self, context: TrainingContext) -> None:
        """Called once before the first step, on the starting weights; also before a resumed run."""

    def begin_stage(self, context: TrainingContext) -> None:
        """Called before the first step of every stage, also if it is resumed, with the stage's starting weights.

        Weights may be changed here; `changed` must name any changed weights that do not train.
        """

    def changed(self, model: Any) -> Collection[str]:
        """Names of frozen weights that the method changes; checkpoints hold them, too."""
        return ()

    def optimised(self, context: TrainingContext) -> Mapping[str, nn.Parameter]:
        """The parameters that the optimiser of a stage updates, by name; called after `begin_stage`.

        A method may return other tensors than the model's: it then sets their gradients in `edit_gradients` and copies
        them to the model in `edit_weights`.
        """
        return context.trainable

    def penalty(self, context: TrainingContext, batch: Batch, outputs: Any) -> Tensor | None:
        """A micro-batch's share of a penalty on the step's loss; shares are summed over micro-batches."""
        return None

    def edit_gradients(self, context: TrainingContext) -> None:
        """Change the accumulated gradients in place, before clipping; some may be None."""

    def edit_weights(self, context: TrainingContext) -> None:
        """Change the weights in place after the optimiser's step; the clipped gradients are still available."""

    def state(self) -> dict[str, Tensor]:
        """Tensors that a resumed run needs."""
        return {}

    def load_state(self, context: TrainingContext, state: Mapping[str, Tensor]) -> None:
        """Restore the tensors of `state`, given as full tensors in main memory; the weights are already restored."""
